"""TSN: a 2D network on every segment's frame, a consensus over the segments, and optionally the temporal shift inside.

(Temporal Segment Networks, arXiv:1608.00859; Temporal Shift Module, arXiv:1811.08383.)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ops.basic_ops import ConsensusModule
from ops.checkpoint.options import ModelOptions
from ops.checkpoint.weights import first_conv_name
from ops.common.errors import InputError
from ops.common.modality import check_modality, clip_channels, default_new_length, input_channels
from ops.network.backbones import backbone_row, build_backbone
from ops.network.param_groups import parameter_groups
from ops.non_local import NONLocalBlock3D, make_non_local
from ops.temporal_shift import make_temporal_pool, make_temporal_shift, pooled_segments
from ops.transforms import Compose, scale_size, train_augmentation

_MIN_INPUT_SIZE = 32


class TSN(nn.Module):
    """Scores of a clip: (N, T*C, H, W) or (N, T, C, H, W) -> (N, num_class), or (N, T, num_class) with 'identity'.

    T is `num_segments`; C is 3 for RGB, 2 * new_length for Flow, 3 * (new_length + 1) for RGBDiff (which takes frames
    and builds `new_length` differences of neighbours itself).

    Args:
        num_class: number of scores.
        num_segments: frames (or stacks) a clip.
        modality: 'RGB', 'Flow' or 'RGBDiff'.
        base_model: a name in `ops.network.backbones.BACKBONES`.
        new_length: frames in a segment's stack (None: 1 for RGB, else 5).
        consensus_type: 'avg' or 'identity'.
        before_softmax: consensus over scores; False: over their softmax.
        dropout: > 0: the backbone's last layer becomes Dropout and `new_fc` the classifier; 0: that layer is the
            classifier.
        img_feature_dim, crop_num: published scripts pass them, nothing reads them.
        partial_bn: start with partial BN on, see `partialBN`.
        print_spec: print the configuration.
        pretrain: 'imagenet', 'none' or '', or a file with the backbone's weights.
        is_shift, shift_div, shift_place: the temporal shift; a fold is C // shift_div channels. Place: 'blockres' or
            'block', or a 12-character mask for BNInception.
        fc_lr5: the classifier learns 5 times faster, see `get_optim_policies`.
        temporal_pool: halve the segments before layer2 of a ResNet.
        non_local: non-local blocks in layer2 and layer3 of a ResNet.
        online: shift from the past only (keyword-only, like all below).
        inplace_shift: shift within the input's own memory in training.
        input_size: side of the crops in pixels.

    Attributes beside the arguments: `input_mean` and `input_std` (lists, as `normalization` subtracts and divides),
    `crop_size`, `scale_size`, `base_model` (the 2D network), `new_fc` (the classifier, or None), `consensus`.

    Raises InputError for unknown values, and for an input whose size does not fit.
    """

    def __init__(
        self,
        num_class: int,
        num_segments: int,
        modality: str,
        base_model: str = "resnet101",
        new_length: int | None = None,
        consensus_type: str = "avg",
        before_softmax: bool = True,
        dropout: float = 0.8,
        img_feature_dim: int = 256,
        crop_num: int = 1,
        partial_bn: bool = True,
        print_spec: bool = True,
        pretrain: str = "imagenet",
        is_shift: bool = False,
        shift_div: int = 8,
        shift_place: str = "blockres",
        fc_lr5: bool = False,
        temporal_pool: bool = False,
        non_local: bool = False,
        *,
        online: bool = False,
        inplace_shift: bool = True,
        input_size: int = 224,
    ) -> None:
        super().__init__()
        self.num_class = num_class
        self.num_segments = num_segments
        self.modality = modality
        self.arch = base_model
        self.new_length = default_new_length(modality) if new_length is None else new_length
        self.consensus_type = consensus_type
        self.before_softmax = before_softmax
        self.dropout = dropout
        self.pretrain = pretrain
        self.is_shift = is_shift
        self.shift_div = shift_div
        self.shift_place = shift_place
        self.fc_lr5 = fc_lr5
        self.temporal_pool = temporal_pool
        self.non_local = non_local
        self.online = online
        self.input_size = input_size
        self._check()
        self.last_layer_name = backbone_row(base_model).last_layer_name
        self.input_mean, self.input_std = self.normalization["mean"], self.normalization["std"]
        if print_spec:
            print(self._spec())

        self.base_model = self._make_base_model(pretrain, inplace_shift)
        self.new_fc = self._make_head()
        self.consensus = ConsensusModule(consensus_type)
        self._enable_pbn = False
        if partial_bn:
            self.partialBN(True)

    def _check(self) -> None:
        check_modality(self.modality)
        for name in ("num_class", "num_segments", "new_length", "shift_div"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.input_size < _MIN_INPUT_SIZE:
            raise InputError(
                f"input_size must be {_MIN_INPUT_SIZE} or more, got {self.input_size}: networks halve it five times"
            )
        if self.modality == "RGB" and self.new_length != 1:
            raise InputError(f"RGB takes one frame a segment: new_length must be 1, got {self.new_length}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and less than 1, got {self.dropout}")
        if not self.before_softmax and self.consensus_type != "avg":
            raise InputError(f"before_softmax=False needs consensus_type 'avg', got {self.consensus_type!r}")

    def _spec(self) -> str:
        shift = f"1/{self.shift_div} {self.shift_place}{' online' if self.online else ''}" if self.is_shift else "off"
        rows = {
            "base model": self.arch,
            "input_modality": self.modality,
            "num_segments": self.num_segments,
            "new_length": self.new_length,
            "consensus_module": self.consensus_type,
            "dropout_ratio": self.dropout,
            "temporal shift": shift,
            "temporal pool": self.temporal_pool,
            "non-local": self.non_local,
            "pretrain": self.pretrain or "none",
        }
        return "\n".join(["TSN configuration:", *(f"    {name + ':':<20}{value}" for name, value in rows.items())])

    # --- construction -------------------------------------------------------------------------------------------------

    def _make_base_model(self, pretrain: str, inplace_shift: bool) -> nn.Module:
        channels = None if self.modality == "RGB" else input_channels(self.modality, self.new_length)
        net = build_backbone(self.arch, pretrain, channels)
        if self.is_shift:
            make_temporal_shift(
                net,
                self.num_segments,
                n_div=self.shift_div,
                place=self.shift_place,
                temporal_pool=self.temporal_pool,
                online=self.online,
                inplace=inplace_shift,
            )
        if self.non_local:
            make_non_local(net, self._last_segments)
        if self.temporal_pool:
            make_temporal_pool(net, self.num_segments)
        return net

    def _make_head(self) -> nn.Linear | None:
        name = self.last_layer_name
        linear = nn.Linear(getattr(self.base_model, name).in_features, self.num_class)
        nn.init.normal_(linear.weight, 0, 0.001)
        nn.init.zeros_(linear.bias)
        if self.dropout == 0:
            setattr(self.base_model, name, linear)
            return None
        setattr(self.base_model, name, nn.Dropout(p=self.dropout))
        return linear

    @property
    def classifier(self) -> nn.Linear:
        """The layer that gives the scores, wherever dropout put it."""
        return self.new_fc if self.new_fc is not None else getattr(self.base_model, self.last_layer_name)

    # --- forward ------------------------------------------------------------------------------------------------------

    @property
    def _last_segments(self) -> int:
        """Segments from layer2 on."""
        return pooled_segments(self.num_segments) if self.temporal_pool else self.num_segments

    @property
    def segment_channels(self) -> int:
        """Channels of a segment as `forward` takes it; RGBDiff brings one frame more than it has differences."""
        return clip_channels(self.modality, self.new_length)

    def _frames(self, clip: Tensor) -> Tensor:
        """(N, T*C, H, W) or (N, T, C, H, W) -> (N*T, C, H, W), RGBDiff's frames turned into differences."""
        segments, channels = self.num_segments, self.segment_channels
        if clip.dim() == 5 and tuple(clip.shape[1:3]) == (segments, channels):
            frames = clip.flatten(0, 1)
        elif clip.dim() == 4 and clip.shape[1] == segments * channels:
            frames = clip.reshape(-1, channels, *clip.shape[2:])
        else:
            raise InputError(
                f"input of shape {tuple(clip.shape)} does not hold {segments} segments of {channels} channels "
                f"({self.modality}): it must be (N, {segments * channels}, H, W) or (N, {segments}, {channels}, H, W)"
            )
        # RGBDiff: (N*T, 3 * (L + 1), H, W) -> (N*T, 3 * L, H, W), each frame's change from the one before
        return frames[:, 3:] - frames[:, :-3] if self.modality == "RGBDiff" else frames

    def frame_scores(self, clip: Tensor) -> Tensor:
        """Scores before the consensus: clip as in `forward` -> (N, T', num_class); T' < T after temporal_pool."""
        features = self.base_model(self._frames(clip))
        scores = features if self.new_fc is None else self.new_fc(features)
        return scores.view(-1, self._last_segments, self.num_class)  # (N*T', K) -> (N, T', K)

    def forward(self, clip: Tensor) -> Tensor:
        scores = self.frame_scores(clip)
        if not self.before_softmax:
            scores = scores.softmax(dim=-1)
        return self.consensus(scores).squeeze(1)

    # --- training -----------------------------------------------------------------------------------------------------

    def _later_batchnorms(self) -> list[nn.Module]:
        """Every 2D BN of the backbone but the first; a non-local block's BN starts at zero and has to learn."""
        non_local = {id(m) for nl in self.modules() if isinstance(nl, NONLocalBlock3D) for m in nl.modules()}
        kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)
        return [m for m in self.base_model.modules() if isinstance(m, kinds) and id(m) not in non_local][1:]

    def partialBN(self, enable: bool) -> None:
        """Partial BN (arXiv:1608.00859, sec. 3.2): all BNs but the first keep their statistics, scale and shift.

        False thaws what True froze. Call it before the optimiser is made: frozen parameters are in no group.
        """
        if enable != self._enable_pbn:
            for bn in self._later_batchnorms():
                for parameter in bn.parameters():
                    parameter.requires_grad_(not enable)
        self._enable_pbn = enable
        self.train(self.training)

    def train(self, mode: bool = True) -> TSN:
        """Training or evaluation mode; partial BN keeps its BNs in evaluation mode."""
        super().train(mode)
        if mode and self._enable_pbn:
            for bn in self._later_batchnorms():
                bn.eval()
        return self

    def get_optim_policies(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser: the eight of `ops.network.param_groups`."""
        return parameter_groups(
            self,
            first_conv=self.base_model.get_submodule(first_conv_name(self.base_model)),
            fast_classifier=self.classifier if self.fc_lr5 else None,
            flow=self.modality == "Flow",
        )

    # --- data ---------------------------------------------------------------------------------------------------------

    @property
    def crop_size(self) -> int:
        """Side of the crops in pixels."""
        return self.input_size

    @property
    def scale_size(self) -> int:
        """Short side that evaluation scales to before cropping: 224 -> 256."""
        return scale_size(self.input_size)

    @property
    def normalization(self) -> dict[str, Any]:
        """Arguments of `ops.transforms.ClipNormalize`: the pixel values that this network takes."""
        return {**backbone_row(self.arch).normalization(self.modality), "channels": self.segment_channels}

    def get_augmentation(self, flip: bool = True) -> Compose:
        """Training augmentation on lists of frames: multi-scale crops and, where `flip`, horizontal flips."""
        return train_augmentation(self.input_size, self.modality, flip)


def tsn_arguments(options: ModelOptions) -> dict[str, Any]:
    """The arguments of TSN that a checkpoint's options record."""
    arguments = options.to_dict()
    for name in ("dataset", "dense_sample", "image_tmpl", "class_names", "flip", "frame_rate"):  # the data pipeline's
        del arguments[name]
    return {"base_model": arguments.pop("arch"), **arguments}


def build_model(options: ModelOptions, *, num_class: int | None = None, **changes: Any) -> TSN:
    """The TSN that a checkpoint's options describe, with random weights; `changes`: TSN's arguments that differ."""
    arguments = {**tsn_arguments(options), "pretrain": "none", "print_spec": False, **changes}
    arguments["num_class"] = options.num_class if num_class is None else num_class
    if arguments["num_class"] is None:
        raise InputError(f"the number of classes of data set {options.dataset} is not recorded: give --num_class")
    return TSN(**arguments)
