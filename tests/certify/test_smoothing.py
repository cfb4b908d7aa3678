"""Randomized smoothing as it is used: counts that come out right, answers that belong to the image, clear refusals."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from vote_models import Line, at_distance

from robustness_lib import data, models
from robustness_lib.certify import RandomizedSmoothing
from robustness_lib.certify.stopping import certified_radius
from robustness_lib.certify.voting import chunk_draws
from robustness_lib.state import image_digests

CHUNK = 50  # draws of a small image that belong to one seed

SIGMA = 0.25
SETTINGS = {
    "certify": lambda s, x, **more: s.certify(x, n0=60, n=330, progress=False, **more),
    "adaptive": lambda s, x, **more: s.certify(x, n0=60, n=1330, tolerance=0.1, progress=False, **more),
    "at": lambda s, x, **more: s.certified_at(x, 0.2, budget=730, n0=60, progress=False, **more),
    "predict": lambda s, x, **more: s.predict(x, n=330, progress=False, **more),
}


class Counted(nn.Module):
    """Counts the images that it sees, and how many at once."""

    def __init__(self, model):
        super().__init__()
        self.model, self.batches = model, []

    def forward(self, x):
        self.batches.append(len(x))
        return self.model(x)

    @property
    def seen(self):
        return sum(self.batches)

    @property
    def most(self):
        return max(self.batches)


@pytest.fixture(scope="module")
def net():
    return models.load_pretrained("signs-tiny-standard")


@pytest.fixture(scope="module")
def x():
    return data.load("signs", "test", n=6)[0]


def columns(found):
    """All that is said of each image."""
    if isinstance(found, torch.Tensor):
        return [found]
    return [found.prediction, found.radius, found.candidate, found.votes, found.draws]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(columns(one), columns(other), strict=True))


# ------------------------------------------------------------------------------------------------------- the numbers


def test_the_radius_is_that_of_the_votes(net, x):
    found = RandomizedSmoothing(net, SIGMA).certify(x, n=330, progress=False)
    assert found.draws.tolist() == [330] * 6
    expected = certified_radius(found.votes.numpy(), 330, 0.001, SIGMA)
    assert found.radius.tolist() == expected.tolist()
    assert found.prediction.tolist() == torch.where(torch.tensor(expected > 0), found.candidate, -1).tolist()
    prediction, radius = found
    assert torch.equal(prediction, found.prediction)
    assert torch.equal(radius, found.radius)


def test_votes_are_what_the_model_answers_to_noisy_images(net, x):
    """Against a plain loop with noise of its own: shares of every candidate within four standard errors."""
    found = RandomizedSmoothing(net, SIGMA).certify(x, n=4000, progress=False)
    torch.manual_seed(0)
    with torch.no_grad():
        votes = torch.stack([net(image + SIGMA * torch.randn(4000, 3, 32, 32)).argmax(1) for image in x])
    shares = (votes == found.candidate[:, None]).double().mean(1)
    error = (2 * shares * (1 - shares) / 4000).sqrt() + 1e-3
    assert ((found.votes / 4000 - shares).abs() <= 4 * error).all()


def test_noise_is_not_clipped_to_the_box():
    class OutOfTheBox(nn.Module):
        def forward(self, x):
            return torch.stack((torch.zeros(len(x)), x.flatten(1).amin(1).neg() - 1e-6), dim=1)

    found = RandomizedSmoothing(OutOfTheBox(), SIGMA).certify(torch.zeros(1, 8), n=100, progress=False)
    assert found.candidate.item() == 1
    assert found.votes.item() > 90


def test_an_image_costs_n0_and_n_passes_and_nothing_more(net, x):
    counted = Counted(net)
    smoothing = RandomizedSmoothing(counted, SIGMA)
    smoothing.predict(x[:1], n=50, progress=False)
    looked = counted.seen - 50
    counted.batches.clear()
    found = smoothing.certify(x, n0=60, n=330, progress=False)
    assert counted.seen - 6 * 390 <= 2 * looked + 6 * 32
    assert found.samples.tolist() == [390] * 6


@pytest.mark.parametrize("n", [10, 500, 5000])
def test_memory_is_bounded_whatever_n(net, x, n):
    counted = Counted(net)
    RandomizedSmoothing(counted, SIGMA).certify(x, n=n, batch_size=120, progress=False)
    assert counted.most <= 120


def test_a_chunk_larger_than_a_batch_is_cut(net, x):
    counted = Counted(net)
    found = RandomizedSmoothing(counted, SIGMA).certify(x[:2], n=330, batch_size=CHUNK // 4, progress=False)
    assert counted.most <= CHUNK // 4 + 1
    assert same(found, RandomizedSmoothing(net, SIGMA).certify(x[:2], n=330, progress=False))


@pytest.mark.parametrize("classes", [2, 43])
def test_the_number_of_classes_comes_from_the_logits(classes):
    class Last(nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.full((len(x),), classes - 1), classes).float() + 0 * x[:, :1]

    found = RandomizedSmoothing(Last(), SIGMA).certify(torch.rand(3, 4), n=100, progress=False)
    assert found.prediction.tolist() == [classes - 1] * 3
    assert found.votes.tolist() == [100] * 3


def test_an_answer_that_is_no_number_is_a_vote_for_nobody():
    class Root(nn.Module):
        def forward(self, x):
            return torch.stack((x[:, 0].sqrt() + 1, torch.zeros(len(x))), dim=1)

    found = RandomizedSmoothing(Root(), SIGMA).certify(torch.tensor([[0.25], [0.0]]), n=1000, progress=False)
    assert found.candidate.tolist() == [0, 0]
    assert found.votes[0] / 1000 == pytest.approx(0.84, abs=0.05)
    assert found.votes[1] / 1000 == pytest.approx(0.5, abs=0.06)
    assert (found.votes + found.unanswered).tolist() == [1000, 1000]
    assert found.certified.tolist() == [True, False]


def test_far_below_half_it_abstains():
    """Three classes of a third each: the top one is surely not at ½, and a two-sided test would 'find' that."""
    class Thirds(nn.Module):
        def forward(self, x):
            angle = torch.atan2(x[:, 1] - 0.5, x[:, 0] - 0.5)
            return torch.stack([torch.cos(angle - turn) for turn in (0.0, 2.0944, 4.18879)], dim=1)

    smoothing = RandomizedSmoothing(Thirds(), SIGMA)
    x = torch.full((5, 2), 0.5)
    prediction, radius = smoothing.certify(x, n=5000, progress=False)
    assert prediction.tolist() == [-1] * 5
    assert radius.tolist() == [0] * 5
    assert not smoothing.certified_at(x, 0.0, budget=5000, progress=False).certified.any()


def test_predict_is_the_two_sided_test_of_the_two_leading_counts():
    line = Line([1.0], 0.5)
    smoothing = RandomizedSmoothing(line, SIGMA)
    told = smoothing.predict(at_distance(line, [0.0, 0.2, 0.4]), n=60, alpha=0.001, progress=False)
    assert told.tolist() == [-1, 1, 1]
    assert smoothing.predict(at_distance(line, [-0.3]), n=60, alpha=0.001, progress=False).tolist() == [0]


# --------------------------------------------------------------------------------------- an answer belongs to its image


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_answer_depends_neither_on_batch_nor_on_order(net, x, kind):
    smoothing, index = RandomizedSmoothing(net, SIGMA), torch.arange(100, 106)
    whole = SETTINGS[kind](smoothing, x, index=index)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    shuffled = SETTINGS[kind](smoothing, x[order], index=index[order], batch_size=77)
    assert all(torch.equal(a[order], b) for a, b in zip(columns(whole), columns(shuffled), strict=True))
    alone = SETTINGS[kind](smoothing, x[2:3], index=index[2:3])
    assert all(torch.equal(a[2:3], b) for a, b in zip(columns(whole), columns(alone), strict=True))


def test_another_seed_or_index_is_other_noise(net, x):
    smoothing = RandomizedSmoothing(net, SIGMA)
    votes = [SETTINGS["certify"](smoothing, x, **more).votes
             for more in ({}, {"seed": 1}, {"index": torch.arange(6) + 6})]
    assert not torch.equal(votes[0], votes[1])
    assert not torch.equal(votes[0], votes[2])


def test_the_class_is_chosen_by_other_votes_than_those_that_bound_it():
    """The same model asked with noise of either purpose: no two draws alike."""
    seen = []

    class Watched(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.stack((x[:, 0], 1 - x[:, 0]), dim=1)

    smoothing = RandomizedSmoothing(Watched(), SIGMA)
    x = torch.full((1, 1), 0.7, dtype=torch.float64)  # in which two draws are hardly alike by chance
    smoothing.certify(x, n0=200, n=1000, progress=False)
    smoothing.predict(x, n=300, progress=False)
    drawn = torch.cat([batch for batch in seen if len(batch) >= CHUNK]).flatten()
    assert len(drawn) >= 1500
    assert len(drawn.unique()) == len(drawn)


def test_nothing_is_left_on_model_images_or_the_global_generator(x):
    net = models.load_pretrained("signs-tiny-standard").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given, state = x.clone(), torch.get_rng_state()
    for run in SETTINGS.values():
        run(RandomizedSmoothing(net, SIGMA), x)
    assert torch.equal(x, given)
    assert torch.equal(state, torch.get_rng_state())
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_answers_are_counted_in_the_type_that_they_come_in():
    """Converted to float32, these logits are all alike, and the first class would win."""
    class Near(nn.Module):
        def forward(self, x):
            logits = torch.full((len(x), 3), 30.0, dtype=torch.float64)
            logits[:, 2] += 1e-7
            return logits + 0 * x.flatten(1)[:, :1]

    smoothing = RandomizedSmoothing(Near(), SIGMA)
    assert smoothing.certify(torch.rand(2, 4), n=100, progress=False).prediction.tolist() == [2, 2]
    assert smoothing.predict(torch.rand(2, 4), n=100, progress=False).tolist() == [2, 2]


def test_large_images_come_in_smaller_chunks():
    assert chunk_draws(torch.empty(1, 3, 224, 224)) == CHUNK
    assert chunk_draws(torch.empty(1, 3, 16, 224, 224)) == 3
    assert chunk_draws(torch.empty(1, 3, 4000, 4000)) == 1
    assert chunk_draws(torch.empty(0, 2)) == CHUNK


def test_certificates_know_their_images_and_where_they_end(net, x):
    smoothing = RandomizedSmoothing(net, SIGMA)
    found = smoothing.certify(x, n=100, up_to=0.3, progress=False)
    assert found.images == tuple(image_digests(x))
    assert found.up_to == 0.3
    assert smoothing.certify(x, n=100, progress=False).up_to is None
    assert smoothing.certified_at(x, 0.1, budget=100, progress=False).up_to == 0.1


def test_settings_may_be_numpys(net, x, tmp_path):
    smoothing = RandomizedSmoothing(net, SIGMA)
    plain = smoothing.certify(x, n=330, seed=3, alpha=0.001, state=tmp_path, progress=False)
    assert same(plain, smoothing.certify(x, n=np.int64(330), seed=np.int64(3), alpha=np.float64(0.001), state=tmp_path,
                                         progress=None))


def test_double_precision_stays_double():
    line = Line([1.0, 1.0], 1.0).double()
    x = at_distance(Line([1.0, 1.0], 1.0), [0.3]).double()
    assert RandomizedSmoothing(line, SIGMA).certify(x, n=200, progress=False).prediction.tolist() == [1]


@pytest.mark.parametrize("kind", SETTINGS)
def test_no_images_have_no_answers(net, x, kind):
    assert all(len(column) == 0 for column in columns(SETTINGS[kind](RandomizedSmoothing(net, SIGMA), x[:0])))


def test_progress_is_told(net, x):
    told = []
    RandomizedSmoothing(net, SIGMA).certify(x, n0=60, n=330, progress=lambda through, draws: told.append(
        (through, draws)))
    through = [images for images, _ in told]
    assert through == sorted(through)
    assert through[-1] == 6
    assert sum(draws for _, draws in told) == 6 * 390


@pytest.mark.cuda
def test_on_a_gpu_answers_belong_to_the_image_too(net, x):
    net, x = copy.deepcopy(net).cuda(), x.cuda()
    smoothing = RandomizedSmoothing(net, SIGMA)
    whole = smoothing.certify(x, n=1000, progress=False)
    assert same(whole, smoothing.certify(x, n=1000, batch_size=333, progress=False))
    assert whole.radius.device.type == "cpu"


# -------------------------------------------------------------------------------------------------------- after a kill


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_killed_run_goes_on_to_the_same_answer(net, x, kind, after, tmp_path, monkeypatch):
    monkeypatch.setattr("robustness_lib.certify._tally._SAVE_SECONDS", 0.0)
    smoothing = RandomizedSmoothing(net, SIGMA)
    expected, batches = SETTINGS[kind](smoothing, x), []

    def interrupt(through, draws):
        batches.append(draws)
        if len(batches) == after:
            raise Killed

    more = {"state": tmp_path / "state", "batch_size": 100}
    run = {"certify": lambda **p: smoothing.certify(x, n0=60, n=330, **p),
           "adaptive": lambda **p: smoothing.certify(x, n0=60, n=1330, tolerance=0.1, **p),
           "at": lambda **p: smoothing.certified_at(x, 0.2, budget=730, n0=60, **p),
           "predict": lambda **p: smoothing.predict(x, n=330, **p)}[kind]
    with pytest.raises(Killed):
        run(progress=interrupt, **more)
    drawn = []
    assert same(run(progress=lambda through, draws: drawn.append(draws), **more), expected)
    whole = []
    run(progress=lambda through, draws: whole.append(draws), batch_size=100)
    assert sum(drawn) <= sum(whole) - (100 if after == 9 else 0)
    assert same(run(progress=False, **more), expected)


def test_a_state_takes_no_more_memory_than_a_run_without(net, x, tmp_path):
    class Small(nn.Module):
        def forward(self, x):
            if len(x) > 8:
                raise torch.OutOfMemoryError("out of memory")
            return net(x)

    for batch_size in (8, None):
        RandomizedSmoothing(Small(), SIGMA).certify(x, n0=10, n=20, batch_size=batch_size, progress=False,
                                                    state=tmp_path / str(batch_size))


def test_a_state_of_a_model_that_knows_no_number_goes_on(x, tmp_path):
    class Nothing(nn.Module):
        def forward(self, x):
            bright = x.mean((1, 2, 3)) > x[:, 0, 0, 0]
            return torch.where(bright[:, None], torch.nan, x.flatten(1)[:, :3])

    assert RandomizedSmoothing(Nothing(), SIGMA).certify(x, n=100, state=tmp_path, progress=False).unanswered.sum() > 0
    RandomizedSmoothing(Nothing(), SIGMA).certify(x, n=100, state=tmp_path, progress=False)


def test_a_finished_state_asks_the_model_no_more(net, x, tmp_path):
    counted = Counted(net)
    smoothing = RandomizedSmoothing(counted, SIGMA)
    first = SETTINGS["certify"](smoothing, x, state=tmp_path)
    counted.batches.clear()
    assert same(first, SETTINGS["certify"](smoothing, x, state=tmp_path))
    assert counted.seen < 300


@pytest.mark.parametrize(("change", "named"), [
    ({"n": 340}, "certify by"), ({"alpha": 0.01}, "alpha"), ({"seed": 1}, "seed"),
    ({"index": torch.arange(6) + 1}, "data"), ({"tolerance": 0.1}, "tolerance"),
])
def test_a_state_of_another_run_is_refused(net, x, change, named, tmp_path):
    smoothing = RandomizedSmoothing(net, SIGMA)
    smoothing.certify(x, n=330, state=tmp_path, progress=False)
    with pytest.raises(ValueError, match=f"another run: not the same {named}"):
        smoothing.certify(x, **({"n": 330, "state": tmp_path, "progress": False} | change))
    with pytest.raises(ValueError, match="sigma"):
        RandomizedSmoothing(net, 0.3).certify(x, n=330, state=tmp_path, progress=False)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("sigma", [0, -0.25, float("nan"), float("inf")])
def test_a_sigma_that_is_no_noise_is_refused(net, sigma):
    with pytest.raises(ValueError, match=r"sigma must be positive and finite, in pixel units .*; found"):
        RandomizedSmoothing(net, sigma)


@pytest.mark.parametrize("sigma", ["0.25", None, True])
def test_a_sigma_that_is_no_number_is_refused(net, sigma):
    with pytest.raises(TypeError, match="sigma must be a number"):
        RandomizedSmoothing(net, sigma)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("ask", ["certify", "predict", "certified_at"])
def test_an_alpha_outside_zero_and_one_is_refused(net, x, alpha, ask):
    more = {"radius": 0.1} if ask == "certified_at" else {}
    with pytest.raises(ValueError, match=r"alpha.* must lie between 0 and 1"):
        getattr(RandomizedSmoothing(net, SIGMA), ask)(x, alpha=alpha, **more)


def test_an_n_that_could_certify_nothing_is_refused_with_the_least_that_can(net, x):
    smoothing = RandomizedSmoothing(net, SIGMA)
    for n in (1, 9):
        with pytest.raises(ValueError, match=rf"with n = {n} votes nothing can be certified.*n = 10 at least"):
            smoothing.certify(x, n=n)
    smoothing.certify(x[:1], n=10, progress=False)
    with pytest.raises(ValueError, match=r"with n = 10 votes nothing can be told.*n = 11 at least"):
        smoothing.predict(x, n=10)
    smoothing.predict(x[:1], n=11, progress=False)
    smoothing.predict(x[:1], n=2, alpha=0.5, progress=False)
    with pytest.raises(ValueError, match="n = 2 at least"):
        smoothing.predict(x[:1], n=1, alpha=0.5)
    with pytest.raises(ValueError, match=r"radius 0.5 cannot be certified.*budget of 313 at least"):
        smoothing.certified_at(x, 0.5, budget=312)
    with pytest.raises(ValueError, match="no number of votes could"):
        smoothing.certified_at(x, 5.0)


@pytest.mark.parametrize(("more", "words"), [
    ({"n": 0}, "n must be at least 1"), ({"n0": 0}, "n0 must be at least 1"), ({"n": 1e4}, "n must be a whole number"),
    ({"tolerance": 0}, "tolerance must be positive"), ({"up_to": -1}, "up_to must be positive"),
    ({"batch_size": 0}, "batch_size must be at least 1"), ({"index": torch.arange(3)}, "index must be int64"),
    ({"seed": 0.5}, "seed must be a whole number"),
])
def test_settings_that_cannot_be_are_refused(net, x, more, words):
    with pytest.raises((ValueError, TypeError), match=words):
        RandomizedSmoothing(net, SIGMA).certify(x, **more)


@pytest.mark.parametrize("radius", [-0.1, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(net, x, radius):
    with pytest.raises(ValueError, match="radius must be finite and at least 0"):
        RandomizedSmoothing(net, SIGMA).certified_at(x, radius)


def test_images_are_checked_as_everywhere(net, x):
    smoothing = RandomizedSmoothing(net, SIGMA)
    with pytest.raises(ValueError, match="must lie in"):
        smoothing.certify(255 * x)
    with pytest.raises(TypeError, match="uint8"):
        smoothing.predict((255 * x).byte())


def test_a_model_that_stays_in_the_box_is_told_about_noise(x):
    class InTheBox(nn.Module):
        def forward(self, x):
            assert x.min() >= 0, "pixels below 0"
            return x.flatten(1)[:, :3]

    with pytest.raises(ValueError, match=r"fails on noisy images \(.*pixels below 0.*Noise is not clipped"):
        RandomizedSmoothing(InTheBox(), SIGMA).certify(x, n=100, progress=False)


class BatchNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x):
        return self.norm(x)


class MeanOverBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class OneDrawABatch(nn.Module):
    def forward(self, x):
        return x + torch.randn(1, 4)


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("model", [BatchNorm(), MeanOverBatch(), OneDrawABatch()], ids=lambda m: type(m).__name__)
def test_votes_that_hang_together_prove_nothing(model, batch_size):
    with pytest.raises(ValueError, match=r"do not stand each for itself .* they prove nothing"):
        RandomizedSmoothing(model, SIGMA).certify(torch.rand(6, 4), n=100, batch_size=batch_size)


@pytest.mark.parametrize("model", [3, nn.Linear, {"weight": torch.zeros(1)}])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError):
        RandomizedSmoothing(model, SIGMA)


def test_a_model_without_logits_is_refused(x):
    with pytest.raises(ValueError, match="as_classifier"):
        RandomizedSmoothing(lambda x: x.mean((1, 2, 3)), SIGMA).certify(x, n=100)


def test_memory_that_runs_out_halves_the_batches(net, x):
    class Small(nn.Module):
        def forward(self, x):
            if len(x) > 60:
                raise torch.OutOfMemoryError("out of memory")
            return net(x)

    found = RandomizedSmoothing(Small(), SIGMA).certify(x, n=330, batch_size=200, progress=False)
    assert same(found, RandomizedSmoothing(net, SIGMA).certify(x, n=330, progress=False))


