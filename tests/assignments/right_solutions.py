"""Right solutions of the problem sets, written in other ways than the book's: none may lose a point.

Each student is a dict, answer → the whole cell. They use loops or whole batches, NumPy or torch, double precision,
Python floats or tensors without dimensions, calls by name or by position, names of their own for parameters, views, and
copies changed in place.
"""

from __future__ import annotations

RIGHT = {
    "ps1-attacks": {
        "calls by name, in double precision": {
            "ps1-gradient": """
def input_gradient(model, images, labels):
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    weights = next(model.parameters(), images)
    x = images.detach().to(weights.dtype).requires_grad_(True)
    chosen = torch.log_softmax(model(x), dim=1).gather(1, labels.unsqueeze(1))
    chosen.neg().sum().backward(inputs=[x])
    for part, mode in modes:
        part.training = mode
    return x.grad.double()
""",
            "ps1-step": """
def l2_step(adv, origin, gradient, eps, step_size):
    adv, origin, gradient = adv.double(), origin.double(), gradient.double()
    length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
    unit = torch.where(length > 0, gradient / length, torch.zeros_like(gradient))
    change = adv + step_size * unit - origin
    far = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
    return torch.clamp(origin + torch.where(far > eps, change * eps / far, change), min=0, max=1)
""",
            "ps1-start": """
def random_start(images, eps, generator):
    points = []
    for image in images:
        direction = torch.normal(0.0, 1.0, image.shape, generator=generator, dtype=torch.float64)
        radius = eps * torch.rand((), generator=generator, dtype=torch.float64) ** (1 / image.numel())
        points.append(image + radius * direction / direction.norm())
    return torch.stack(points).clamp(min=0, max=1)
""",
            "ps1-pgd": """
def pgd(model, images, labels, eps, *, steps, step_size, targeted=False, generator=None):
    if generator is None:
        adv = images
    else:
        adv = random_start(images=images, eps=eps, generator=generator)
    for _ in range(steps):
        gradient = input_gradient(model=model, images=adv, labels=labels)
        if targeted:
            gradient = -gradient
        adv = l2_step(adv=adv, origin=images, gradient=gradient, eps=eps, step_size=step_size)
    return adv
""",
            "ps1-detective": """
averages = []
for target in range(10):
    adv = pgd(model, images, torch.full((len(images),), target), 0.5, steps=5, step_size=0.1, targeted=True)
    averages.append((adv - images).mean(dim=0))
findings = averages
""",
        },
        "one image at a time, and names of their own": {
            "ps1-gradient": """
def input_gradient(network, x, y):
    was_training = network.training
    network.eval()
    rows = []
    for image, label in zip(x, y):
        image = image[None].detach().clone().requires_grad_()
        F.cross_entropy(network(image), label[None]).backward()
        rows.append(image.grad[0])
    network.zero_grad(set_to_none=False)
    network.train(was_training)
    return torch.stack(rows)
""",
            "ps1-step": """
def l2_step(current, start, g, eps, step_size):
    result = torch.empty_like(current)
    for i in range(len(current)):
        delta = current[i] - start[i]
        if g[i].norm() > 0:
            delta += step_size * g[i] / g[i].norm()
        if delta.norm() > eps:
            delta *= eps / delta.norm()
        result[i] = start[i] + delta
    return result.clamp_(0, 1)
""",
            "ps1-start": """
def random_start(x, radius, rng):
    z = torch.randn(x.shape, generator=rng)
    z /= z.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    u = torch.rand(x.shape[0], 1, 1, 1, generator=rng)
    return x.add(z * radius * u.pow(1 / x[0].numel())).clamp_(0, 1)
""",
            "ps1-pgd": """
def pgd(network, x, y, eps, *, steps, step_size, targeted=False, generator=None):
    current = x.clone()
    if generator is not None:
        current = random_start(x=x, radius=eps, rng=generator)
    for _ in range(steps):
        g = input_gradient(network=network, x=current, y=y)
        current = l2_step(current=current, start=x, g=g, eps=eps, step_size=-step_size if targeted else step_size)
    return current
""",
            "ps1-detective": """
import numpy as np

everything = images.repeat(10, 1, 1, 1)
targets = torch.arange(10).repeat_interleave(len(images))
difference = pgd(model, everything, targets, 0.5, steps=5, step_size=0.15, targeted=True) - everything
findings = difference.view(10, len(images), 3, 32, 32).mean(1).numpy().astype(np.float64)
""",
        },
        "one function for everything": {
            "ps1-pgd": """
def pgd(model, images, labels, eps, *, steps, step_size, targeted=False, generator=None):
    adv = images.clone().detach()
    if generator is not None:
        noise = torch.randn(images.shape, generator=generator)
        noise = noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        adv = (images + noise * eps * torch.rand(len(images), 1, 1, 1, generator=generator) ** (1 / images[0].numel()))
        adv = adv.clamp(0, 1)
    for _ in range(steps):
        adv.requires_grad_(True)
        loss = F.cross_entropy(model(adv), labels, reduction="none").sum()
        g = torch.autograd.grad(-loss if targeted else loss, adv)[0]
        with torch.no_grad():
            g = g / g.flatten(1).norm(dim=1).clamp(min=1e-20).view(-1, 1, 1, 1)
            delta = adv + step_size * g - images
            delta = delta / (delta.flatten(1).norm(dim=1) / eps).clamp(min=1).view(-1, 1, 1, 1)
            adv = torch.clamp(images + delta, 0, 1)
    return adv.detach()
""",
        },
    },
    "ps2-features": {
        "NumPy wherever it goes": {
            "ps2-rho": """
import numpy as np

def usefulness(values, positive):
    f, y = np.asarray(values, dtype=np.float64), np.asarray(positive)
    centre = (f[y].mean() + f[~y].mean()) / 2
    sigma = np.sqrt((np.mean((f[y] - centre) ** 2) + np.mean((f[~y] - centre) ** 2)) / 2)
    return (f[y].mean() - f[~y].mean()) / (2 * sigma)
""",
            "ps2-linear": """
def linear_gamma(weights, images, positive, eps):
    w, x = np.asarray(weights, dtype=np.float64), np.asarray(images, dtype=np.float64)
    f, y = np.einsum("chw,nchw->n", w, x), np.asarray(positive)
    centre = (f[y].mean() + f[~y].mean()) / 2
    sigma = np.sqrt((np.mean((f[y] - centre) ** 2) + np.mean((f[~y] - centre) ** 2)) / 2)
    return (f[y].mean() - f[~y].mean()) / (2 * sigma) - eps * np.sqrt((w**2).sum()) / sigma
""",
            "ps2-filter": """
def build_filter(images, labels, label):
    x, y = np.asarray(images), np.asarray(labels)
    k = np.fft.fftfreq(32, d=1 / 32)
    high = np.sqrt(k[:, None] ** 2 + k[None, :] ** 2) >= 9
    spectrum = np.fft.fft2(x[y == label].mean(axis=0) - x.mean(axis=0))
    return np.real(np.fft.ifft2(spectrum * high))
""",
            "ps2-report": """
w = build_filter(workbench.images.numpy(), workbench.labels.numpy(), 3)
is_three = fresh.labels.numpy() == 3
report = {"rho": usefulness((fresh.images.numpy() * w).sum(axis=(1, 2, 3)), is_three)}
report["gamma"] = linear_gamma(w, fresh.images, is_three, 0.5)
""",
            "ps2-ensemble": """
def ensemble_weights(values, positive):
    f, y = np.asarray(values, dtype=np.float64), np.asarray(positive)
    plus, minus = f[y].mean(axis=0), f[~y].mean(axis=0)
    c = (plus + minus) / 2
    variance = (((f[y] - c) ** 2).mean(axis=0) + ((f[~y] - c) ** 2).mean(axis=0)) / 2
    return (plus - minus) / 2 / variance
""",
        },
        "tensors without dimensions, one image at a time": {
            "ps2-rho": """
def usefulness(values, positive):
    sides = [[v for v, p in zip(values, positive) if bool(p) == side] for side in (True, False)]
    m = [sum(side) / len(side) for side in sides]
    centre = (m[0] + m[1]) / 2
    variance = sum(sum((v - centre) ** 2 for v in side) / len(side) for side in sides) / 2
    return (m[0] - m[1]) / 2 / variance**0.5
""",
            "ps2-linear": """
def linear_gamma(weights, images, positive, eps):
    values = torch.stack([(weights * image).sum() for image in images]).double()
    m_plus, m_minus = values[positive].mean(), values[~positive].mean()
    spread = 0.5 * values[positive].var(correction=0) + 0.5 * values[~positive].var(correction=0)
    sigma = torch.sqrt(spread + ((m_plus - m_minus) / 2) ** 2)
    return ((m_plus - m_minus) / 2 - eps * torch.linalg.vector_norm(weights)) / sigma
""",
            "ps2-search": """
def searched_gamma(function, images, positive, eps, steps, step_size):
    with torch.no_grad():
        before = torch.cat([function(image[None]) for image in images])
    after = []
    for image, up in zip(images, positive):
        x = image[None].clone()
        for _ in range(steps):
            x = x.detach().requires_grad_()
            function(x).sum().backward()
            g = x.grad
            x = x.detach() + (-1 if up else 1) * step_size * g / max(float(g.norm()), 1e-20)
            change = x - image
            if change.norm() > eps:
                change *= eps / change.norm()
            x = (image + change).clamp_(0, 1)
        after.append(function(x.detach()))
    after = torch.cat(after)
    c = (before[positive].mean() + before[~positive].mean()) / 2
    sigma = ((before[positive] - c).pow(2).mean() / 2 + (before[~positive] - c).pow(2).mean() / 2).sqrt()
    after = (after - c) / sigma
    return after[positive].mean() / 2 - after[~positive].mean() / 2
""",
            "ps2-report": """
chosen = build_filter(fresh.images, fresh.labels, 3)
y = workbench.labels == 3
report = {
    "rho": usefulness(torch.tensordot(workbench.images, chosen, dims=3), y),
    "gamma": linear_gamma(chosen, workbench.images, y, 0.5),
}
""",
            "ps2-ensemble": """
def ensemble_weights(values, positive):
    weights = []
    for column in values.T:
        a, b = column[positive], column[~positive]
        c = (a.mean() + b.mean()) / 2
        weights.append((a.mean() - b.mean()) / ((a - c).square().mean() + (b - c).square().mean()))
    return torch.stack(weights).double()
""",
        },
        "two groups at a time, in double precision": {
            "ps2-search": """
def searched_gamma(function, images, positive, eps, steps, step_size):
    images = images.double()
    adv = images.clone()
    for mask, sign in ((positive, -1.0), (~positive, 1.0)):
        origin = images[mask]
        x = origin.clone()
        for _ in range(steps):
            x.requires_grad_(True)
            g = torch.autograd.grad(function(x).sum(), x)[0]
            g = g / (g.flatten(1).norm(dim=1)[:, None, None, None] + 1e-30)
            with torch.no_grad():
                x = x + sign * step_size * g
                d = x - origin
                x = origin + d * torch.clamp(eps / (d.flatten(1).norm(dim=1) + 1e-30), max=1.0)[:, None, None, None]
                x = torch.clamp(x, 0.0, 1.0)
        adv[mask] = x.detach()
    f, f_adv = function(images).detach(), function(adv).detach()
    c = 0.5 * (f[positive].mean() + f[~positive].mean())
    sigma = (0.5 * ((f[positive] - c) ** 2).mean() + 0.5 * ((f[~positive] - c) ** 2).mean()) ** 0.5
    return (0.5 * ((f_adv[positive] - c) / sigma).mean() - 0.5 * ((f_adv[~positive] - c) / sigma).mean()).item()
""",
            "ps2-report": """
mine = build_filter(workbench.images, workbench.labels, label=3)
positive = fresh.labels == 3
report = {}
report["rho"] = round(usefulness((fresh.images * mine).sum((1, 2, 3)), positive), 2)
report["gamma"] = round(linear_gamma(mine, fresh.images, positive, 0.5), 2)
""",
        },
    },
    "ps3-datasets": {
        "one image at a time, by name": {
            "ps3-match": """
def match(model, start, target, steps, step_size):
    found = []
    for image, wanted in zip(start, target):
        z = image[None].clone()
        for _ in range(steps):
            z = z.detach().requires_grad_(True)
            loss = torch.linalg.vector_norm(model.representation(z)[0] - wanted) / torch.linalg.vector_norm(wanted)
            loss.backward()
            z = torch.clamp(z.detach() - step_size * z.grad / (z.grad.norm() + 1e-20), 0, 1)
        found.append(z[0])
    model.zero_grad()
    return torch.stack(found)
""",
            "ps3-dr": """
def build_robust_set(model, images, labels, generator, steps, step_size):
    index = []
    for i in range(len(images)):
        j = i
        while j == i:
            j = int(torch.randint(len(images), (1,), generator=generator))
        index.append(j)
    found = [
        match(
            model=model,
            start=images[j : j + 1],
            target=model.representation(images[i : i + 1]).detach(),
            steps=steps,
            step_size=step_size,
        )
        for i, j in enumerate(index)
    ]
    return torch.cat(found), labels.clone(), index
""",
            "ps3-det": """
y = train_set.labels[:2000]
det_labels = torch.where(y == 9, 0, y + 1)
det_images = torch.empty(2000, 3, 32, 32)
for k in range(0, 2000, 500):
    x, t = train_set.images[k : k + 500], det_labels[k : k + 500]
    det_images[k : k + 500] = pgd(standard, x, t, L2(0.5), targeted=True, step_size=0.2, steps=5)
""",
            "ps3-learn": """
learner = course.learn(det_images, det_labels)
own = nxt = 0
with torch.no_grad():
    for x, y in zip(test_set.images.split(100), test_set.labels.split(100)):
        said = learner(x).max(dim=1).indices
        own += (said == y).sum()
        nxt += (said == (y + 1) % 10).sum()
report = {"own class": own / len(test_set), "next class": nxt / len(test_set)}
""",
        },
        "double precision, and names of their own": {
            "ps3-match": """
def match(net, x0, goal, steps, step_size):
    x = x0.clone()
    for _ in range(steps):
        x.requires_grad_()
        d = ((net.representation(x) - goal).pow(2).sum(1) / goal.pow(2).sum(1)).sqrt()
        g = torch.autograd.grad(d, x, grad_outputs=torch.ones_like(d))[0]
        g = torch.nn.functional.normalize(g.flatten(1), dim=1).view_as(x)
        x = (x.detach() - step_size * g).clamp(0.0, 1.0)
    return x.double()
""",
            "ps3-dr": """
def build_robust_set(model, images, labels, generator, steps, step_size):
    n = images.shape[0]
    others = torch.ones(n, n) - torch.eye(n)
    index = torch.multinomial(others, 1, generator=generator).squeeze(1).int()
    goal = model.representation(images)
    return match(net=model, x0=images[index.long()], goal=goal, steps=steps, step_size=step_size), labels.int(), index
""",
            "ps3-learn": """
learner = course.learn(det_images, det_labels)
said = learner(test_set.images).detach().numpy().argmax(axis=1)
labels = test_set.labels.numpy()
report = {"own class": round(float((said == labels).mean()), 2), "next class": (said == (labels + 1) % 10).mean()}
""",
        },
        "a search of its own": {
            "ps3-dr": """
def build_robust_set(model, images, labels, generator, steps, step_size):
    n = len(images)
    index = torch.randint(n - 1, (n,), generator=generator)
    index[index >= torch.arange(n)] += 1
    target = model.representation(images).detach()
    z = images[index]
    for _ in range(steps):
        z.requires_grad_()
        loss = (model.representation(z) - target).norm(dim=1).sum()
        g = torch.autograd.grad(loss, z)[0]
        z = (z.detach() - step_size * g / g.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1)
    return [z.detach(), labels, index]
""",
        },
    },
    "ps4-theory": {
        "NumPy wherever it goes": {
            "ps4-mle": """
import numpy as np
from scipy.linalg import sqrtm

def standard_fit(x, y):
    x, y = np.asarray(x), np.asarray(y)
    mean = (y[:, None] * x).mean(axis=0)
    return mean, np.cov(x * y[:, None], rowvar=False, bias=True)
""",
            "ps4-robust": """
def robust_covariance(covariance, price):
    s = np.asarray(covariance)
    return s / 2 + np.eye(len(s)) / price + np.real(sqrtm(s / price + s @ s / 4))
""",
            "ps4-price": """
def find_price(covariance, eps):
    s = np.asarray(covariance)

    def spends(log_price):
        price = np.exp(log_price)
        return np.log(np.trace(np.linalg.inv(robust_covariance(s, price))) / price**2) - 2 * np.log(eps)

    return np.exp(brentq(spends, -40, 40, xtol=1e-13))
""",
            "ps4-attack": """
def attacked(mean, covariance, x, y, price):
    mean, covariance, x, y = (np.asarray(part) for part in (mean, covariance, x, y))
    z = x - y[:, None] * mean
    return x + z @ np.linalg.inv(price * covariance - np.eye(len(mean)))
""",
            "ps4-alignment": """
def alignment(mean, covariance):
    mean = np.asarray(mean)
    gradient = np.linalg.solve(np.asarray(covariance), mean)
    return mean @ gradient / np.linalg.norm(mean) / np.linalg.norm(gradient)


def worst_direction(covariance):
    s, basis = np.linalg.eigh(np.asarray(covariance))
    t = np.sqrt(s[0] / (s[0] + s[-1]))
    return np.sqrt(1 - t**2) * basis[:, -1] + t * basis[:, 0]
""",
            "ps4-angles": """
angles = {}
for eps in (0, 0.5, 1, 2):
    covariance = world.covariance
    if eps:
        covariance = robust_covariance(covariance, find_price(covariance, eps))
    angles[eps] = np.degrees(np.arccos(alignment(world.mean, covariance)))
""",
        },
        "loops and tensors, by name": {
            "ps4-mle": """
def standard_fit(x, y):
    n, d = x.shape
    mean = torch.zeros(d, dtype=x.dtype)
    for point, side in zip(x, y):
        mean += side * point / n
    covariance = torch.zeros(d, d, dtype=x.dtype)
    for point, side in zip(x, y):
        z = point - side * mean
        covariance += torch.outer(z, z) / n
    return [mean, covariance]
""",
            "ps4-robust": """
def robust_covariance(matrix, multiplier):
    values, vectors = torch.linalg.eigh(matrix)
    root = torch.sqrt(values / multiplier + values * values / 4)
    return vectors @ ((values / 2 + 1 / multiplier + root)[:, None] * vectors.T)
""",
            "ps4-price": """
def find_price(covariance, eps):
    low, high = torch.tensor(1e-9, dtype=torch.float64), torch.tensor(1e9, dtype=torch.float64)
    for _ in range(200):
        middle = (low * high).sqrt()
        fit = robust_covariance(matrix=covariance, multiplier=middle)
        spent = torch.linalg.eigvalsh(fit).reciprocal().sum() / middle**2
        low, high = (middle, high) if spent > eps**2 else (low, middle)
    return middle
""",
            "ps4-attack": """
def attacked(mean, covariance, x, y, price):
    moved = x.clone()
    matrix = torch.linalg.inv(price * covariance - torch.eye(len(mean), dtype=torch.float64))
    for i in range(len(x)):
        moved[i] += matrix @ (x[i] - y[i] * mean)
    return moved
""",
            "ps4-alignment": """
def alignment(mean, covariance):
    return torch.nn.functional.cosine_similarity(mean, torch.linalg.inv(covariance) @ mean, dim=0)


def worst_direction(covariance):
    values, vectors = torch.linalg.eigh(covariance)
    tries = [
        math.cos(angle) * vectors[:, -1] + math.sin(angle) * vectors[:, 0]
        for angle in torch.linspace(0, math.pi / 2, 1001).tolist()
    ]
    return min(tries, key=lambda mean: float(alignment(mean, covariance)))
""",
            "ps4-angles": """
angles = dict.fromkeys((0.0, 0.5, 1.0, 2.0))
for eps in angles:
    fit = robust_covariance(world.covariance, find_price(world.covariance, eps)) if eps else world.covariance
    angles[eps] = round(float(torch.rad2deg(torch.arccos(alignment(world.mean, fit)))), 1)
angles[0.5] = torch.tensor(angles[0.5])
""",
        },
    },
    "ps5-project": {
        "tensors and arrays": {
            "ps5-measure": """
import numpy as np

def measure(dataset, seed):
    images, labels = dataset.images.numpy(), dataset.labels.numpy()
    order = np.random.default_rng(seed).permutation(len(labels))
    seen, asked = order[:300], order[300:]
    means = np.stack([images[seen][labels[seen] == c].mean(axis=0) for c in range(10)])
    means -= means.mean(axis=0)
    said = (images[asked].reshape(300, -1) @ means.reshape(10, -1).T).argmax(axis=1)
    return torch.tensor((said == labels[asked]).mean())
""",
            "ps5-report": """
from scipy import stats

values = np.array([float(measure(sample, seed)) for seed, sample in enumerate(samples)])
low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(5))
control = []
for seed, sample in enumerate(samples):
    mixed = torch.from_numpy(np.random.default_rng(100 + seed).permutation(sample.labels.numpy()))
    control.append(measure(sample.replace(labels=mixed), seed))
report = {"values": values, "mean": values.mean(), "low": low, "high": high, "control": torch.stack(control).mean()}
""",
        },
        "plain Python": {
            "ps5-report": """
import statistics

values = [measure(samples[seed], seed) for seed in range(5)]
mean = statistics.fmean(values)
half = 2.776 * statistics.stdev(values) / 5**0.5
mixed = [s.replace(labels=s.labels.flip(0)) for s in samples]
report = dict(values=tuple(values), mean=mean, low=mean - half, high=mean + half)
report["control"] = statistics.fmean(measure(mixed[seed], seed) for seed in range(5))
""",
        },
    },
}
