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
from ops.common.modality import clip_channels, default_new_length, input_channels
from ops.network.backbones import backbone_row, build_backbone
from ops.network.param_groups import parameter_groups
from ops.network.tsn_options import check_options, describe_options
from ops.non_local import NONLocalBlock3D, make_non_local
from ops.temporal_shift import (
    TemporalPool,
    TemporalShift,
    make_temporal_pool,
    make_temporal_shift,
    pooled_segments,
    set_segments,
)
from ops.transforms import Compose, scale_size, train_augmentation


class TSN(nn.Module):
    """Scores of a clip: (N, T*C, H, W) or (N, T, C, H, W) -> (N, num_class), or (N, T, num_class) with 'identity'.

    T is `num_segments`; C is 3 for RGB, 2 * new_length for Flow, 3 * (new_length + 1) for RGBDiff (which takes frames
    and builds `new_length` differences of neighbours itself). (N*T, C, H, W) is taken as well.

    Args:
        num_class: number of scores.
        num_segments: frames (or stacks) a clip.
        modality: 'RGB', 'Flow' or 'RGBDiff'.
        base_model: a name in `ops.network.backbones.BACKBONES`, or a 2D network with a last linear layer, which is
            changed in place (docs/extend.md).
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
        base_model: str | nn.Module = "resnet101",
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
        self._num_segments = num_segments
        self.modality = modality
        self.arch = base_model if isinstance(base_model, str) else type(base_model).__name__
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
        check_options(self)
        row = backbone_row(base_model)
        self.last_layer_name = row.last_layer_name
        self._normalization = row.normalization(modality)
        self.input_mean, self.input_std = self.normalization["mean"], self.normalization["std"]
        if print_spec:
            print(describe_options(self))
        self.base_model = self._make_base_model(base_model, pretrain, inplace_shift)
        self.new_fc = self._make_head()
        self.consensus = ConsensusModule(consensus_type)
        self._enable_pbn = False
        self.partialBN(partial_bn)

    # --- construction -------------------------------------------------------------------------------------------------

    def _make_base_model(self, base_model: str | nn.Module, pretrain: str, inplace_shift: bool) -> nn.Module:
        channels = None if self.modality == "RGB" else input_channels(self.modality, self.new_length)
        net = build_backbone(base_model, pretrain, channels)
        shift = next((module for module in net.modules() if isinstance(module, TemporalShift)), None)
        if shift is not None and shift.n_segment != self.num_segments:
            raise InputError(f"the network shifts {shift.n_segment} segments, and num_segments is {self.num_segments}")
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
            make_non_local(net, self.num_segments)
        if self.temporal_pool:
            make_temporal_pool(net, self.num_segments)
        return net

    def _make_head(self) -> nn.Linear | None:
        name = self.last_layer_name
        linear = nn.Linear(self.base_model.get_submodule(name).in_features, self.num_class)
        nn.init.normal_(linear.weight, 0, 0.001)
        nn.init.zeros_(linear.bias)
        if self.dropout == 0:
            self.base_model.set_submodule(name, linear)
            return None
        self.base_model.set_submodule(name, nn.Dropout(p=self.dropout))
        return linear

    def __setattr__(self, name: str, value: Any) -> None:
        """Setting `new_fc` replaces the classifier, also where dropout 0 put it into the backbone."""
        if name == "new_fc" and value is not None and self.dropout == 0:
            self.base_model.set_submodule(self.last_layer_name, nn.Identity())
        super().__setattr__(name, value)

    @property
    def classifier(self) -> nn.Module:
        """The layer that gives the scores, wherever dropout put it."""
        return self.new_fc if self.new_fc is not None else self.base_model.get_submodule(self.last_layer_name)

    # --- forward ------------------------------------------------------------------------------------------------------

    @property
    def num_segments(self) -> int:
        """Frames (or stacks) a clip; setting it sets the shifts, the temporal pool and the non-local blocks as well."""
        return self._num_segments

    @num_segments.setter
    def num_segments(self, num_segments: int) -> None:
        set_segments(self.base_model, num_segments)
        self._num_segments = num_segments

    @property
    def _last_segments(self) -> int:
        """Segments from layer2 on."""
        is_pooled = isinstance(getattr(self.base_model, "layer2", None), TemporalPool)
        return pooled_segments(self.num_segments) if is_pooled else self.num_segments

    @property
    def segment_channels(self) -> int:
        """Channels of a segment as `forward` takes it; RGBDiff brings one frame more than it has differences."""
        return clip_channels(self.modality, self.new_length)

    def _frames(self, clip: Tensor) -> Tensor:
        """Clip as in `forward` -> (N*T, C, H, W), RGBDiff's frames turned into differences."""
        segments, channels = self.num_segments, self.segment_channels
        layout, of_clips = tuple(clip.shape[1:-2]), ((segments * channels,), (segments, channels))
        if layout not in of_clips and (layout != (channels,) or clip.shape[0] % segments):
            raise InputError(
                f"input of shape {tuple(clip.shape)} does not hold {segments} segments of {channels} channels "
                f"({self.modality}): it must be (N, {segments * channels}, H, W) or (N, {segments}, {channels}, H, W)"
            )
        frames = clip.reshape(-1, channels, *clip.shape[-2:])
        # RGBDiff: (N*T, 3 * (L + 1), H, W) -> (N*T, 3 * L, H, W), each frame's change from the one before
        return frames[:, 3:] - frames[:, :-3] if self.modality == "RGBDiff" else frames

    def frame_scores(self, clip: Tensor, no_reshape: bool = False) -> Tensor:
        """Scores before the consensus: clip as in `forward` -> (N, T', num_class); T' < T after temporal_pool."""
        features = self.base_model(clip if no_reshape else self._frames(clip))
        scores = features if self.new_fc is None else self.new_fc(features)
        return scores.view(-1, self._last_segments, scores.shape[-1])  # (N*T', K) -> (N, T', K)

    def features(self, clip: Tensor) -> Tensor:
        """Pooled features before dropout and classifier: clip -> (N, T', D), T' as in `frame_scores`."""
        features: list[Tensor] = []
        last_layer = self.base_model.get_submodule(self.last_layer_name)
        hook = last_layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        try:
            self.frame_scores(clip)
        finally:
            hook.remove()
        return features[0].view(-1, self._last_segments, features[0].shape[-1])  # (N*T', D) -> (N, T', D)

    def forward(self, clip: Tensor, no_reshape: bool = False) -> Tensor:
        """`no_reshape`: the clip is (N*T, C, H, W) as the backbone takes it, for RGBDiff of differences."""
        scores = self.frame_scores(clip, no_reshape)
        if not self.before_softmax:
            scores = scores.softmax(dim=-1)
        scores = self.consensus(scores)
        return scores.squeeze(1) if scores.shape[1] == 1 else scores

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
        return {**self._normalization, "channels": self.segment_channels}

    def get_augmentation(self, flip: bool = True) -> Compose:
        """Training augmentation on lists of frames: multi-scale crops and, where `flip`, horizontal flips."""
        return train_augmentation(self.input_size, self.modality, flip)


def build_model(options: ModelOptions, *, num_class: int | None = None, **changes: Any) -> TSN:
    """The TSN that a checkpoint's options describe, with random weights; `changes`: TSN's arguments that differ."""
    arguments = {**options.tsn_arguments(), "pretrain": "none", "print_spec": False, **changes}
    arguments["num_class"] = options.num_class if num_class is None else num_class
    if arguments["num_class"] is None:
        raise InputError(f"the number of classes of data set {options.dataset} is not recorded: give --num_class")
    return TSN(**arguments)
