"""Networks of one kind that run in one pass: how members are stacked.

The contract, which nothing outside of this file needs to know:

* Every parameter and buffer of a member has its name below `members`, with the members on axis 0.
* A module whose class says ``stacks = True`` runs with such weights and x of shape (rows, members
  or 1, ...). Others go through :func:`torch.func.vmap`, and what that cannot batch (LSTM, GRU,
  data-dependent control flow) is looped over, with the same result.
"""

from __future__ import annotations

import copy
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from sklearn_probmix.pooling import Mixture
from sklearn_probmix.processes import unwrapped

__all__ = ["Ensemble", "template_of"]

logger = logging.getLogger(__name__)


class Ensemble(nn.Module):
    """Networks of one kind that run in one pass.

    Parameters
    ----------
    module : callable
        Makes one member.
    n_members : int
    **kwargs
        Arguments of `module`.

    Attributes
    ----------
    members : Module
        Holds the stacked weights.
    template : Module
        What runs in training, whose submodules may be hooked.
    own_rows : bool
        Whether x is (rows, n_members, ...) in training, each member's own.
    vectorised : bool or None
        Whether members run in one pass; None before the first.

    Examples
    --------
    >>> import torch
    >>> from sklearn_probmix.ensemble import Ensemble
    >>> from sklearn_probmix.modules import MLP
    >>> Ensemble(MLP, n_members=5, n_features=4)(torch.zeros(10, 4)).shape
    torch.Size([10, 5, 1, 2])
    """

    own_rows = False

    def __init__(self, module: Callable[..., nn.Module], n_members: int, **kwargs: Any):
        super().__init__()
        self.n_members = n_members
        members = [module(**kwargs) for _ in range(n_members)]
        first = members[0]
        if n_members > 1:
            parameters, buffers = stack_module_state(members)
        else:
            # Of shapes alone, as a model file is read, torch would import seconds of code to stack.
            parameters = _with_axis(first.named_parameters())
            buffers = _with_axis(first.named_buffers())
        persistent = first.state_dict().keys()
        # A subclass may have a forward pass of its own, for which this does not hold.
        self.stacks: bool = vars(type(first)).get("stacks", False)
        self.members = first if self.stacks else nn.Module()
        self._names = [*parameters, *buffers]
        for name, value in parameters.items():
            owner, leaf = self._owner(name)
            weight = nn.Parameter(value.detach(), requires_grad=value.requires_grad)
            setattr(owner, leaf, weight)
        for name, value in buffers.items():
            owner, leaf = self._owner(name)
            owner.register_buffer(leaf, value, persistent=name in persistent)
        self.vectorised = True if self.stacks else None
        if not self.stacks:
            # Weights that are shared within a member would stay in the template as vmap saw them.
            if len([*first.named_parameters(remove_duplicate=False)]) > len(parameters):
                self.vectorised = False
            # In a tuple, so that its weights, which are replaced in every call, are not registered.
            self._template = (copy.deepcopy(first).to("meta"),)
            self._idle: deque[nn.Module] = deque()

    @property
    def template(self) -> nn.Module:
        """Return what runs in training."""
        return self.members if self.stacks else self._template[0]

    @property
    def row_block(self) -> int:
        """Return the number of rows whose multiples leave a row's bits as they are."""
        return vars(self.template)["row_block"]

    def train(self, mode: bool = True) -> Ensemble:
        """Set the mode of the members too."""
        if not self.stacks:
            # Those that are stacked are below this module.
            self.template.train(mode)
        return super().train(mode)

    def forward(self, X: Tensor) -> Tensor | Mixture:
        """Map x (rows, ...) to natural parameters (rows, members * components, ...).

        The components of a member are consecutive.
        """
        return self._flatten(self._map(X, 1 if self.own_rows and self.training else None))

    def each(self, X: Tensor) -> Tensor | Mixture:
        """Map every member's own x (rows, members, ...); the result is as of `forward`."""
        return self._flatten(self._map(X, 1))

    def state_of(self, members: int | slice) -> dict[str, Tensor]:
        """Return what `load_state_dict` of one member's module, or of a smaller ensemble, takes."""
        state, prefix = self.members.state_dict(), "" if isinstance(members, int) else "members."
        return {prefix + name: state[name][members] for name in self._names if name in state}

    def __getstate__(self):
        return vars(self) | ({} if self.stacks else {"_idle": deque()})

    def _owner(self, name):
        """Find the module below `members` that holds a parameter, and its name there."""
        *path, leaf = name.split(".")
        owner = self.members
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        return owner, leaf

    def _map(self, X, axis):
        if self.stacks:
            return self.members(X.unsqueeze(1) if axis is None else X)
        state = {name: getattr(*self._owner(name)) for name in self._names}
        with self._runner() as template:

            def run(state, x):
                return functional_call(template, state, (x,))

            if self.vectorised is not False:
                try:
                    outputs = vmap(run, in_dims=(0, axis), out_dims=1, randomness="different")(
                        state, X
                    )
                except RuntimeError as error:
                    if self.vectorised:
                        raise
                    self.vectorised = False
                    logger.info("Members are looped over: vmap cannot batch them (%s).", error)
                else:
                    self.vectorised = True
                    return outputs
            outputs = [
                run(
                    {name: value[member] for name, value in state.items()},
                    X if axis is None else X.select(axis, member),
                )
                for member in range(self.n_members)
            ]
        if isinstance(outputs[0], tuple):
            return Mixture(*(torch.stack(parts, dim=1) for parts in zip(*outputs, strict=True)))
        return torch.stack(outputs, dim=1)

    @contextmanager
    def _runner(self) -> Iterator[nn.Module]:
        """Lend a template to one call: a pass puts weights into it, which no other may see."""
        if self.training:
            yield self.template
            return
        try:
            template = self._idle.pop()
        except IndexError:
            template = copy.deepcopy(self.template).eval()
        try:
            yield template
        finally:
            self._idle.append(template)

    def _flatten(self, outputs):
        if isinstance(outputs, tuple):
            eta, log_weights = outputs
            return Mixture(eta.flatten(1, 2), log_weights.flatten(1, 2) - math.log(self.n_members))
        return outputs.flatten(1, 2) if outputs.ndim == 5 else outputs


def _with_axis(named):
    return {
        name: value.detach().unsqueeze(0).requires_grad_(value.requires_grad)
        for name, value in named
    }


def template_of(module: nn.Module) -> nn.Module:
    """Return the module that runs, of which an ensemble has one for all members."""
    module = unwrapped(module)
    return module.template if isinstance(module, Ensemble) else module
