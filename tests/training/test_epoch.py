"""The engine against the plainest form of each rule, on networks of a few weights."""

from __future__ import annotations

import copy
import math
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ops.common.errors import InputError
from ops.data.loader import LoaderError
from ops.training.epoch import _batches, train_one_epoch, validate
from ops.training.progress import EpochProgress, Hooks, StopRequestedError
from ops.training.step import autocast, forward_backward, summed_loss

CPU = torch.device("cpu")
NUM_CLASSES = 7


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


def make_optimizer(net, momentum=0.9):
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    groups = [
        {"params": weights, "lr_mult": 1, "decay_mult": 1},
        {"params": others, "lr_mult": 2, "decay_mult": 0},
    ]
    return torch.optim.SGD(groups, 1.0, momentum=momentum)


def run_epoch(net, batches, optimizer=None, **options):
    progress = options.pop("progress", None) or EpochProgress(0)
    defaults = {"lr_of_step": lambda step: 0.1, "weight_decay": 0.01, "num_steps": len(batches)}
    complete = train_one_epoch(
        net,
        batches[progress.step :],
        optimizer or make_optimizer(net),
        progress=progress,
        normalize=normalize,
        device=CPU,
        **{**defaults, **options},
    )
    return progress, complete


def weights_of(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


# --- one step ----


@pytest.mark.parametrize("accum_steps", [1, 2, 3, 4, 6, 9])
def test_gradient_is_that_of_the_mean_loss_however_the_batch_is_split(accum_steps):
    net, batch = make_net(), make_batch(6)
    read = forward_backward(net, batch.clips, batch.labels, normalize=normalize, device=CPU, accum_steps=accum_steps)
    plain = make_net()
    loss = F.cross_entropy(plain(normalize(batch.clips)), batch.labels)
    loss.backward()
    for ours, expected in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-5, atol=1e-7)
    assert read.wait()[0] / 6 == pytest.approx(loss.item(), rel=1e-6)


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
    progress, complete = run_epoch(
        net, batches, lr_of_step=lambda step: 0.0, print_freq=1, hooks=Hooks(log=lines.append)
    )
    assert complete and progress.step == 2
    assert progress.losses.avg == pytest.approx(sum(loss for loss, _ in expected) / 6, rel=1e-6)
    assert progress.top1.avg == pytest.approx(100 * sum(right for _, right in expected) / 6)
    fields = lines[1].split("\t")
    assert [field.split()[0] for field in fields] == ["Epoch:", "Time", "Data", "Loss", "Prec@1", "Prec@5"]
    assert fields[0] == "Epoch: [0][1/2], lr: 0.00000"
    assert fields[3] == f"Loss {progress.losses.val:.4f} ({progress.losses.avg:.4f})"


def test_learning_rate_is_set_in_every_step():
    net = make_net()
    optimizer, seen = make_optimizer(net), []
    batches = [make_batch(seed=s) for s in range(3)]
    run_epoch(
        net,
        batches,
        optimizer,
        lr_of_step=lambda step: 0.1 * (step + 1),
        hooks=Hooks(trace=lambda step, lr, loss, norm: seen.append((step, lr, norm))),
    )
    assert [(step, pytest.approx(lr)) for step, lr, _ in seen] == [(0, 0.1), (1, 0.2), (2, 0.3)]
    assert all(norm > 0 for *_, norm in seen)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.3, 0.6])


def test_an_epoch_in_two_halves_equals_one_in_a_piece():
    batches = [make_batch(seed=s) for s in range(4)]
    whole, halves = make_net(), make_net()
    expected, _ = run_epoch(whole, batches)
    optimizer, stop = make_optimizer(halves), []
    hooks = Hooks(trace=lambda step, *_: stop.append(step), should_stop=lambda: len(stop) == 2)
    progress, complete = run_epoch(halves, batches, optimizer, hooks=hooks)
    assert not complete and progress.step == 2
    progress = EpochProgress.from_state_dict(copy.deepcopy(progress.state_dict()))
    progress, complete = run_epoch(halves, batches, optimizer, progress=progress)
    assert complete
    assert torch.equal(weights_of(whole), weights_of(halves))
    for name in ("losses", "top1", "top5"):
        assert getattr(progress, name).state_dict() == getattr(expected, name).state_dict()


def test_saving_happens_behind_every_nth_step_but_not_the_last():
    saved = []
    run_epoch(
        make_net(),
        [make_batch(seed=s) for s in range(6)],
        save_every=2,
        hooks=Hooks(save=lambda progress: saved.append(progress.step)),
    )
    assert saved == [2, 4]


def test_fp16_scaler_leaves_the_update_as_it_is():
    batches = [make_batch(seed=s) for s in range(3)]
    plain, scaled = make_net(), make_net()
    run_epoch(plain, batches, clip_norm=0.5)
    run_epoch(scaled, batches, clip_norm=0.5, scaler=torch.amp.GradScaler("cpu"))  # clips after unscaling
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
def test_stop_names_step_and_samples_before_the_weights_change(gradient):
    net, described, batches = Overflowing(gradient), [], overflowing_batches()
    good = Overflowing(gradient)
    run_epoch(good, batches[:1])

    def describe(step, batch, loss, norm):
        described.append((step, batch is batches[1], math.isfinite(loss)))
        return "samples: these"

    with pytest.raises(InputError, match=r"is (nan|inf) in step 1 at learning rate 0\.1; samples: these; a lower --lr"):
        run_epoch(net, batches, hooks=Hooks(describe_nonfinite=describe))
    assert described == [(1, True, gradient)]
    assert torch.equal(weights_of(net), weights_of(good))


@pytest.mark.parametrize("gradient", [False, True])
def test_skip_leaves_no_trace_of_the_step(gradient):
    batches, lines = overflowing_batches(), []
    net, good = Overflowing(gradient), Overflowing(gradient)
    progress, complete = run_epoch(net, batches, on_nan="skip", hooks=Hooks(log=lines.append))
    run_epoch(good, [batches[0], batches[2]])
    assert complete and progress.num_nonfinite == 1
    assert sum(line.startswith("Skipped: ") for line in lines) == 1
    assert torch.equal(weights_of(net), weights_of(good))
    for ours, expected in zip(net.buffers(), good.buffers(), strict=True):  # BN statistics, too
        assert torch.equal(ours, expected)


def test_skipping_gives_up_when_the_weights_are_lost():
    net = make_net()
    with torch.no_grad():
        net[0].weight[0] = math.nan
    with pytest.raises(InputError, match="weights are not finite either"):
        run_epoch(net, [make_batch()], on_nan="skip")


def test_skipping_gives_up_after_twenty_steps_in_a_row():
    batch = overflowing_batches()[1]
    with pytest.raises(InputError, match="20 steps in a row"):
        run_epoch(Overflowing(), [batch] * 30, on_nan="skip")


# --- validation ----


def run_validation(net, batches, num_listed, **options):
    return validate(
        net, batches, num_listed=num_listed, num_classes=NUM_CLASSES, normalize=normalize, device=CPU, **options
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
        f"Prec@1 {last1:.3f} ({result.top1:.3f})\tPrec@5 {last5:.3f} ({result.top5:.3f})"
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
def test_a_loader_that_breaks_is_told_to_processes_that_listen(expects_more):
    told = []
    job = SimpleNamespace(world_size=2, gather_ints=told.append)
    guard = SimpleNamespace(check_pending=lambda: None)

    def loader():
        yield "a batch"
        raise LoaderError("workers were killed")

    batches = _batches(loader(), guard, job, expects_more=lambda: expects_more)
    assert next(batches) == "a batch"
    if expects_more:
        with pytest.raises(LoaderError, match="workers were killed"):
            next(batches)
        assert told == [[0, 0, 0, 1]]
    else:  # the epoch is whole, and nobody listens
        assert list(batches) == told == []
