"""Steps, epochs and validation against the plainest form of each rule, on networks of a few weights."""

from __future__ import annotations

import copy
import math
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ops.checkpoint.options import ModelOptions
from ops.common.distributed import Process
from ops.common.errors import InputError
from ops.data.loader import LoaderError
from ops.network.runtime import autocast
from ops.training.epoch import EpochProgress, Hooks, _batches, train_one_epoch
from ops.training.schedule import Schedule
from ops.training.settings import Settings
from ops.training.step import Networks, Updater, forward_backward, summed_loss
from ops.training.validation import StopRequestedError, validate

CPU = torch.device("cpu")
NUM_CLASSES = 7
OPTIONS = ModelOptions(dataset="mine", modality="RGB", arch="resnet18", num_segments=1, num_class=NUM_CLASSES)


def normalize(clips):
    return clips.float() / 255


def make_net(*, batch_norm=False, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3), *([nn.BatchNorm2d(4)] if batch_norm else []), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * 4 * 4, NUM_CLASSES))


def make_batch(size=6, seed=0, failures=()):
    generator = torch.Generator().manual_seed(seed)
    return SimpleNamespace(
        clips=torch.randint(0, 256, (size, 3, 6, 6), dtype=torch.uint8, generator=generator),
        labels=torch.randint(0, NUM_CLASSES, (size,), generator=generator),
        indices=torch.arange(size),
        failures=list(failures),
    )


def make_updater(net, momentum=0.9, scaler=None):
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    groups = [
        {"params": weights, "lr_mult": 1, "decay_mult": 1},
        {"params": others, "lr_mult": 2, "decay_mult": 0},
    ]
    return Updater(torch.optim.SGD(groups, 1.0, momentum=momentum), scaler)


def make_settings(lr=0.1, schedule=None, **options):
    return Settings(OPTIONS, schedule or Schedule(lr), **{"weight_decay": 0.01, **options})


def run_epoch(net, batches, updater=None, *, progress=None, hooks=None, **options):
    progress = progress or EpochProgress(0)
    complete = train_one_epoch(
        Networks.wrap(net, normalize, Process()),
        updater or make_updater(net),
        batches[progress.step :],
        progress=progress,
        num_steps=len(batches),
        settings=make_settings(**options),
        process=Process(),
        hooks=hooks or Hooks(),
    )
    return progress, complete


def weights_of(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


# --- one step ----


@pytest.mark.parametrize("accum_steps", [1, 2, 3, 4, 6, 9])
def test_gradient_is_that_of_the_mean_loss_however_the_batch_is_split(accum_steps):
    net, batch = make_net(), make_batch(6)
    networks, settings = Networks.wrap(net, normalize, Process()), make_settings(accum_steps=accum_steps)
    read = forward_backward(networks, make_updater(net), batch, num_total=6, settings=settings, process=Process())
    plain = make_net()
    loss = F.cross_entropy(plain(normalize(batch.clips)), batch.labels)
    loss.backward()
    for ours, expected in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-5, atol=1e-7)
    assert read.wait()[0] / 6 == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("accum_steps", [1, 4])
def test_class_weights_multiply_each_sample_s_loss(accum_steps):
    net, batch, weights = make_net(), make_batch(6), torch.arange(1.0, NUM_CLASSES + 1)
    networks = Networks.wrap(net, normalize, Process(), loss_weights=weights.tolist())
    settings = make_settings(accum_steps=accum_steps)
    read = forward_backward(networks, make_updater(net), batch, num_total=6, settings=settings, process=Process())
    plain = make_net()
    losses = F.cross_entropy(plain(normalize(batch.clips)), batch.labels, reduction="none")
    loss = (weights[batch.labels] * losses).mean()
    loss.backward()
    for ours, expected in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-5, atol=1e-7)
    assert read.wait()[0] / 6 == pytest.approx(loss.item(), rel=1e-6)
    # validation stays as it is
    result = validate(networks, [batch], num_listed=6, settings=settings, process=Process(), hooks=Hooks())
    assert result.loss == pytest.approx(losses.mean().item(), rel=1e-5)


def test_scores_without_consensus_answer_frame_by_frame():
    scores, labels = torch.randn(2, 3, NUM_CLASSES), torch.tensor([1, 4])
    loss, mean = summed_loss(scores, labels)
    expected = sum(F.cross_entropy(scores[n], labels[n].expand(3)) for n in range(2))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(mean, scores.mean(1))


def test_amp_computes_in_the_asked_type_and_keeps_weights_in_float32():
    net = nn.Linear(4, 4)
    with autocast(CPU, "bf16"):
        assert net(torch.ones(1, 4)).dtype == torch.bfloat16
    with autocast(CPU, "none"):
        assert net(torch.ones(1, 4)).dtype == torch.float32


# --- an epoch ----


def plain_epoch(net, batches, *, lr=0.1, weight_decay=0.01, clip_norm=None, momentum=0.9):
    """The textbook loop, with the update of SGD written out."""
    speed = [torch.zeros_like(p) for p in net.parameters()]
    for batch in batches:
        net.zero_grad()
        F.cross_entropy(net(normalize(batch.clips)), batch.labels).backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters()))
        scale = 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
        with torch.no_grad():
            for p, v in zip(net.parameters(), speed, strict=True):
                lr_mult, decay_mult = (1, 1) if p.dim() > 1 else (2, 0)
                v.mul_(momentum).add_(p.grad * scale + weight_decay * decay_mult * p)
                p.sub_(lr * lr_mult * v)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_epoch_equals_the_textbook_loop(clip_norm):
    batches = [make_batch(seed=s) for s in range(4)]
    ours, plain = make_net(), make_net()
    run_epoch(ours, batches, clip_norm=clip_norm)
    plain_epoch(plain, batches, clip_norm=clip_norm)
    torch.testing.assert_close(weights_of(ours), weights_of(plain), rtol=1e-5, atol=1e-6)


def test_meters_are_means_over_samples_and_lines_read_as_published():
    net, batches, lines = make_net(), [make_batch(4, 1), make_batch(2, 2)], []
    expected = []
    for batch in batches:
        scores = net(normalize(batch.clips))
        expected += [
            (F.cross_entropy(s[None], y[None]).item(), bool(s.argmax() == y))
            for s, y in zip(scores, batch.labels, strict=True)
        ]
    hooks = Hooks(log=lines.append, run_seconds_left=lambda step_seconds: 3600)
    progress, complete = run_epoch(net, batches, lr=0.0, print_freq=1, hooks=hooks)
    assert complete and progress.step == 2
    assert progress.losses.avg == pytest.approx(sum(loss for loss, _ in expected) / 6, rel=1e-6)
    assert progress.top1.avg == pytest.approx(100 * sum(right for _, right in expected) / 6)
    fields = lines[1].split("\t")
    assert [field.split()[0] for field in fields] == ["Epoch:", "Time", "Data", "Loss", "Prec@1", "Prec@5", "eta"]
    assert fields[0] == "Epoch: [0][1/2], lr: 0.00000"
    assert fields[3] == f"Loss {progress.losses.val:.4f} ({progress.losses.avg:.4f})"
    assert fields[6] == "eta 0:00:00 (run 1:00:00)"  # after the epoch's last step


def test_learning_rate_is_set_in_every_step():
    net, seen = make_net(), []
    updater = make_updater(net)
    hooks = Hooks(trace=lambda step, lr, loss, norm: seen.append((step, lr, norm)))
    batches = [make_batch(seed=s) for s in range(3)]
    run_epoch(net, batches, updater, schedule=Schedule(0.3, warmup_epochs=1), hooks=hooks)
    assert [(step, pytest.approx(lr)) for step, lr, _ in seen] == [(0, 0.1), (1, 0.2), (2, 0.3)]
    assert all(norm > 0 for *_, norm in seen)
    assert [group["lr"] for group in updater.optimizer.param_groups] == pytest.approx([0.3, 0.6])


def test_an_epoch_in_two_halves_equals_one_in_a_piece():
    batches = [make_batch(seed=s) for s in range(4)]
    whole, halves = make_net(), make_net()
    expected, _ = run_epoch(whole, batches)
    updater, stop = make_updater(halves), []
    hooks = Hooks(trace=lambda step, *_: stop.append(step), should_stop=lambda: len(stop) == 2)
    progress, complete = run_epoch(halves, batches, updater, hooks=hooks)
    assert not complete and progress.step == 2
    progress = EpochProgress.from_state_dict(copy.deepcopy(progress.state_dict()))
    progress, complete = run_epoch(halves, batches, updater, progress=progress)
    assert complete
    assert torch.equal(weights_of(whole), weights_of(halves))
    for name in ("losses", "top1", "top5"):
        assert getattr(progress, name).state_dict() == getattr(expected, name).state_dict()


def test_saving_happens_after_every_nth_step_but_not_the_last():
    progress, saved = EpochProgress(0), []
    run_epoch(
        make_net(),
        [make_batch(seed=s) for s in range(6)],
        progress=progress,
        save_every=2,
        hooks=Hooks(save=lambda: saved.append(progress.step)),
    )
    assert saved == [2, 4]


def test_fp16_scaler_leaves_the_update_as_it_is():
    batches = [make_batch(seed=s) for s in range(3)]
    plain, scaled = make_net(), make_net()
    run_epoch(plain, batches, clip_norm=0.5)
    updater = make_updater(scaled, scaler=torch.amp.GradScaler("cpu"))
    run_epoch(scaled, batches, updater, clip_norm=0.5)  # clips after unscaling
    torch.testing.assert_close(weights_of(scaled), weights_of(plain), rtol=1e-4, atol=1e-6)


# --- samples that cannot be read ----


def test_unreadable_sample_ends_the_epoch_with_its_message():
    with pytest.raises(InputError, match="list:3: cut"):
        run_epoch(make_net(), [make_batch(), make_batch(failures=["list:3: cut.jpg"])])


def test_unreadable_samples_are_left_out_and_counted():
    missing = make_batch(0, failures=["list:1: gone", "list:2: gone"])
    batches = [make_batch(5, 1, failures=["list:3: cut"]), missing, make_batch(6, 2)]
    messages = []
    ours, plain = make_net(), make_net()
    progress, _ = run_epoch(ours, batches, on_error="skip", hooks=Hooks(unread=messages.append))
    plain_epoch(plain, [batches[0], batches[2]])
    assert progress.num_unread == 3 and progress.losses.count == 11
    assert messages == ["list:3: cut", "list:1: gone", "list:2: gone"]
    torch.testing.assert_close(weights_of(ours), weights_of(plain), rtol=1e-5, atol=1e-6)


# --- numbers that are not finite ----


class Overflowing(nn.Module):
    """Gives infinite scores, or with `gradient` an infinite gradient, for clips whose first pixel is 255."""

    def __init__(self, gradient=False):
        super().__init__()
        self.net, self.gradient = make_net(batch_norm=True), gradient

    def forward(self, x):
        scores = self.net(x)
        if bool((x[:, 0, 0, 0] == 1).any()):
            if self.gradient:
                scores.register_hook(lambda grad: grad * math.inf)
            else:
                scores = scores * math.inf
        return scores


def overflowing_batches():
    batches = [make_batch(seed=s) for s in range(3)]
    for batch in batches:
        batch.clips[:, 0, 0, 0] = 1
    batches[1].clips[2, 0, 0, 0] = 255
    return batches


@pytest.mark.parametrize("gradient", [False, True])
def test_a_number_that_is_not_finite_ends_the_epoch_before_the_weights_change(gradient):
    net, batches = Overflowing(gradient), overflowing_batches()
    good = Overflowing(gradient)
    run_epoch(good, batches[:1])
    hooks = Hooks(name_samples=lambda batch: "batch 1" if batch is batches[1] else "another")
    with pytest.raises(InputError, match=r"is (nan|inf) in step 1 at learning rate 0\.1 \(batch 1\); a lower --lr"):
        run_epoch(net, batches, hooks=hooks)
    assert torch.equal(weights_of(net), weights_of(good))


def test_an_overflow_under_fp16_is_the_scaler_s_business():
    net, good = Overflowing(gradient=True), Overflowing(gradient=True)
    batches, traced = overflowing_batches(), []
    scaler = torch.amp.GradScaler("cpu")
    hooks = Hooks(trace=lambda step, *_: traced.append(step))
    _, complete = run_epoch(net, batches, make_updater(net, scaler=scaler), hooks=hooks)
    run_epoch(good, [batches[0], batches[2]])
    assert complete and traced == [0, 2] and scaler.get_scale() == 2**15  # half of the first scale
    torch.testing.assert_close(weights_of(net), weights_of(good), rtol=1e-4, atol=1e-6)


# --- validation ----


def run_validation(net, batches, num_listed, hooks=None, **options):
    networks = Networks.wrap(net, normalize, Process())
    return validate(
        networks,
        batches,
        num_listed=num_listed,
        settings=make_settings(**options),
        process=Process(),
        hooks=hooks or Hooks(),
    )


def test_validation_is_the_mean_over_videos_in_eval_mode():
    net, batches, lines = make_net(batch_norm=True), [make_batch(6, 1), make_batch(1, 2)], []
    result = run_validation(net, batches, 7, print_freq=1, hooks=Hooks(log=lines.append))
    net.eval()
    scores = torch.cat([net(normalize(batch.clips)) for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    ranks = [
        sorted(range(NUM_CLASSES), key=lambda k, row=row: -row[k]).index(y)
        for row, y in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    assert result.loss == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-6)
    assert result.top1 == pytest.approx(100 * sum(rank < 1 for rank in ranks) / 7)
    assert result.top5 == pytest.approx(100 * sum(rank < 5 for rank in ranks) / 7)
    assert (result.num_videos, result.num_listed) == (7, 7)
    assert int(result.confusion.sum()) == 7
    assert int(result.confusion.diagonal().sum()) == sum(rank < 1 for rank in ranks)
    last_loss = F.cross_entropy(scores[6:], labels[6:]).item()
    last1, last5 = (100.0 * (ranks[6] < k) for k in (1, 5))
    assert re.sub(r"Time \S+ \(\S+\)", "Time", lines[1]) == (  # as published: of this batch (of all so far)
        f"Test: [1/2]\tTime\tLoss {last_loss:.4f} ({result.loss:.4f})\t"
        f"Prec@1 {last1:.3f} ({result.top1:.3f})\tPrec@5 {last5:.3f} ({result.top5:.3f})\teta 0:00:00"
    )


def test_validation_counts_only_what_it_saw():
    batches = [make_batch(2, 1, failures=["list:3: cut"]), make_batch(0, failures=["list:4: gone"])]
    with pytest.raises(InputError, match="list:3: cut"):
        run_validation(make_net(), batches, 4)
    messages = []
    result = run_validation(make_net(), batches, 4, on_error="skip", hooks=Hooks(unread=messages.append))
    assert (result.num_videos, result.num_listed) == (2, 4) and len(messages) == 2


def test_validation_of_nothing_readable_is_an_error():
    with pytest.raises(InputError, match="none of 1 validation video could be read"):
        run_validation(make_net(), [make_batch(0, failures=["list:1: gone"])], 1, on_error="skip")


def test_validation_ends_at_a_signal():
    with pytest.raises(StopRequestedError):
        run_validation(make_net(), [make_batch()], 6, hooks=Hooks(should_stop=lambda: True))


@pytest.mark.parametrize("expects_more", [True, False])
def test_other_processes_learn_of_a_loader_that_breaks_where_they_listen(expects_more):
    told = []
    job = SimpleNamespace(world_size=2, gather_ints=told.append)
    finite = SimpleNamespace(flush=lambda: None)

    def loader():
        yield "a batch"
        raise LoaderError("workers were killed")

    batches = _batches(loader(), finite, job, expects_more=lambda: expects_more)
    assert next(batches) == "a batch"
    if expects_more:
        with pytest.raises(LoaderError, match="workers were killed"):
            next(batches)
        assert told == [[0, 0, 0, 1]]
    else:  # the epoch is whole, and no process listens
        assert list(batches) == told == []
