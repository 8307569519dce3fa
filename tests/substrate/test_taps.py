"""Reading and editing the residual stream: the semantics of the map, one claim per test."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ftw.substrate import reference
from ftw.substrate.errors import EditError, NumericError, SiteError
from ftw.substrate.model import Model
from ftw.substrate.taps import RowEdit, Taps, any_armed, tap
from ftw.substrate.types import Edit, Site

IDS = torch.tensor([[72, 105, 32, 116, 104], [101, 114, 101, 33, 10], [65, 66, 67, 68, 69]])


@pytest.fixture(scope="module")
def model() -> Model:
    return reference.tiny()


def add(layer: int, value: float, label: str = "add") -> Edit:
    return Edit(Site(layer), lambda h: h + value, label)


def forward(model: Model, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model.net(input_ids=ids).logits


def hooks(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.net.modules())


def every_site(model: Model) -> list[Site]:
    return [Site(layer) for layer in range(-1, model.n_layers)]


def test_readings_are_the_hidden_states_of_transformers(model: Model) -> None:
    with torch.no_grad():
        hidden = model.net(input_ids=IDS, output_hidden_states=True).hidden_states
    with tap(model, every_site(model)) as trace:
        forward(model)
    for layer in range(-1, model.n_layers - 1):  # the last entry of hidden_states is already normed
        assert torch.equal(trace[Site(layer)], hidden[layer + 1])
    assert torch.equal(model.arch.tail[0](trace[Site(model.n_layers - 1)]), hidden[-1])
    assert list(trace) == list(trace.sites) == every_site(model)


def test_a_tap_takes_the_anatomy_as_well_as_the_model(model: Model) -> None:
    with tap(model.arch, [Site(0)]) as trace:
        forward(model)
    assert trace[Site(0)].shape == (3, 5, model.d_model)


def test_reading_changes_nothing_and_leaves_no_hook(model: Model) -> None:
    plain = forward(model)
    before = hooks(model)
    with tap(model, every_site(model)):
        assert torch.equal(forward(model), plain)
    assert hooks(model) == before


def test_at_one_site_reads_come_before_edits_and_later_blocks_show_them(model: Model) -> None:
    with tap(model, every_site(model)) as plain:
        forward(model)
    with tap(model, every_site(model), [add(1, 0.5)]) as trace:
        forward(model)
    assert torch.equal(trace[Site(1)], plain[Site(1)])
    assert not torch.equal(trace[Site(2)], plain[Site(2)])
    assert torch.equal(trace[Site(0)], plain[Site(0)])


def test_an_edit_at_the_last_block_changes_the_logits_as_its_tail_says(model: Model) -> None:
    last = Site(model.n_layers - 1)
    with tap(model, [last], [Edit(last, lambda h: h * 0.5, "half")]) as trace:
        logits = forward(model)
    assert torch.allclose(logits, model.net.lm_head(model.arch.tail[0](trace[last] * 0.5)), atol=1e-6)


def test_the_embedding_can_be_read_and_edited(model: Model) -> None:
    with tap(model, [Site(-1)]) as other:
        forward(model, IDS.flip(0))
    replaced = other[Site(-1)]
    with tap(model, [Site(-1)], [Edit(Site(-1), lambda h: replaced.clone(), "swap")]) as trace:
        logits = forward(model)
    assert torch.equal(trace[Site(-1)], model.arch.embed(IDS))
    assert torch.equal(logits, forward(model, IDS.flip(0)))


def test_edits_at_one_site_apply_in_list_order(model: Model) -> None:
    plus, times = add(2, 1.0), Edit(Site(2), lambda h: h * 2, "times")
    with tap(model, [Site(3)], [plus, times]) as first:
        forward(model)
    with tap(model, [Site(3)], [Edit(Site(2), lambda h: (h + 1.0) * 2, "both")]) as both:
        forward(model)
    with tap(model, [Site(3)], [times, plus]) as second:
        forward(model)
    assert torch.equal(first[Site(3)], both[Site(3)])
    assert not torch.equal(first[Site(3)], second[Site(3)])


@pytest.mark.parametrize("rows", [(0,), (1,), (0, 1), (2, 0), (0, 1, 2)])
def test_an_edit_of_some_rows_never_touches_the_others(model: Model, rows: tuple[int, ...]) -> None:
    plain = forward(model)
    with tap(model, edits=[add(1, 1.0)]):
        edited = forward(model)
    with tap(model, edits=[RowEdit(add(1, 1.0), rows)]):
        mixed = forward(model)
    for row in range(3):
        assert torch.equal(mixed[row], (edited if row in rows else plain)[row])


def test_edits_of_different_rows_do_not_see_each_other(model: Model) -> None:
    seen: list[torch.Size] = []

    def look(h: Tensor) -> Tensor:
        seen.append(h.shape)
        return h + 1

    with tap(model, edits=[RowEdit(Edit(Site(0), look, "a"), [1]), RowEdit(add(0, -1.0, "b"), [0, 2])]):
        forward(model)
    assert seen == [torch.Size((1, 5, model.d_model))]


def test_an_edit_of_no_rows_changes_nothing(model: Model) -> None:
    plain = forward(model)
    with tap(model, edits=[RowEdit(add(0, 9.0), [])]):
        assert torch.equal(forward(model), plain)


def test_an_inner_tap_sees_the_model_as_the_outer_one_edits_it(model: Model) -> None:
    with tap(model, [Site(1)], [add(1, 3.0, "outer")]) as outer, tap(model, [Site(1)], [add(1, 4.0)]) as inner:
        both = forward(model)
    assert torch.equal(inner[Site(1)], outer[Site(1)] + 3.0)
    with tap(model, edits=[Edit(Site(1), lambda h: (h + 3.0) + 4.0, "sum")]):
        assert torch.equal(forward(model), both)


def test_persistent_taps_are_inner_to_a_tap_that_was_opened_later(model: Model) -> None:
    taps = Taps(model)
    taps.set([Site(1)])
    with tap(model, edits=[add(1, 3.0)]), taps.armed() as trace:
        forward(model)
    with tap(model, [Site(1)]) as plain:
        forward(model)
    taps.close()
    assert torch.equal(trace[Site(1)], plain[Site(1)] + 3.0)


def test_the_graph_is_kept_when_asked_and_cut_when_not(model: Model) -> None:
    leaf = Edit(Site(-1), lambda h: h.clone().requires_grad_(), "leaf")
    with tap(model, [Site(1)], [leaf], grad=True) as trace:
        logits = model.net(input_ids=IDS).logits
    (gradient,) = torch.autograd.grad(logits[..., 0].sum(), trace[Site(1)])
    assert gradient.abs().sum() > 0
    with tap(model, [Site(1)], [leaf]) as trace:
        assert model.net(input_ids=IDS).logits.requires_grad
    assert not trace[Site(1)].requires_grad


def test_gradients_flow_through_edits_of_rows(model: Model) -> None:
    push = torch.zeros(model.d_model, requires_grad=True)
    with tap(model, edits=[RowEdit(Edit(Site(0), lambda h: h + push, "push"), [1])], grad=True):
        logits = model.net(input_ids=IDS).logits
    (mine,) = torch.autograd.grad(logits[1].logsumexp(-1).sum(), push, retain_graph=True)
    assert mine.abs().sum() > 0
    (others,) = torch.autograd.grad(logits[0].logsumexp(-1).sum(), push)
    assert others.abs().sum() == 0


def test_no_hook_survives_a_crash_in_the_block_in_an_edit_or_in_the_model(model: Model) -> None:
    before = hooks(model)

    def crash(h: Tensor) -> Tensor:
        raise ZeroDivisionError("in the edit")

    for body in (lambda: 1 // 0, lambda: forward(model)):
        with pytest.raises(ZeroDivisionError), tap(model, [Site(0)], [Edit(Site(2), crash, "bad")]):
            body()
        assert hooks(model) == before
        assert not any_armed()
    with pytest.raises(IndexError), tap(model, [Site(0)]):
        forward(model, torch.tensor([[10**6]]))
    assert hooks(model) == before


def test_a_tap_of_one_thread_neither_reads_nor_edits_anothers_pass(model: Model) -> None:
    plain = forward(model)
    inside, done = threading.Event(), threading.Event()
    results: list[Tensor] = []

    def other() -> None:
        inside.wait(10)
        results.append(forward(model))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with tap(model, [Site(0)], [add(0, 5.0)]) as trace:
        inside.set()
        assert done.wait(30)
        assert Site(0) not in trace
        edited = forward(model)
    thread.join()
    assert torch.equal(results[0], plain)
    assert not torch.equal(edited, plain)


def test_a_tap_of_one_task_neither_reads_nor_edits_anothers_pass(model: Model) -> None:
    plain = forward(model)

    async def tapped(ready: asyncio.Event, done: asyncio.Event) -> None:
        with tap(model, edits=[add(0, 5.0)]):
            ready.set()
            await done.wait()

    async def untapped(ready: asyncio.Event, done: asyncio.Event) -> Tensor:
        await ready.wait()
        logits = forward(model)
        done.set()
        return logits

    async def both() -> Tensor:
        ready, done = asyncio.Event(), asyncio.Event()
        return (await asyncio.gather(tapped(ready, done), untapped(ready, done)))[1]

    assert torch.equal(asyncio.run(both()), plain)


def test_persistent_taps_act_only_while_armed_and_only_where_told(model: Model) -> None:
    plain, before = forward(model), hooks(model)
    taps = Taps(model)
    taps.set([Site(2)], [add(0, 1.0)])
    assert taps.hook_count == 2
    assert torch.equal(forward(model), plain)
    with taps.armed() as trace:
        edited = forward(model)
    assert not torch.equal(edited, plain)
    assert Site(2) in trace
    taps.set([Site(2)])
    assert taps.hook_count == 1
    with taps.armed():
        assert torch.equal(forward(model), plain)
    taps.set()
    assert taps.hook_count == 0
    assert hooks(model) == before


def test_the_trace_holds_the_last_pass(model: Model) -> None:
    with tap(model, [Site(0)]) as trace:
        forward(model)
        forward(model, IDS[:1, :2])
    assert trace[Site(0)].shape == (1, 2, model.d_model)


class Odd(nn.Module):
    """A block that answers with what it is told to."""

    def __init__(self, wrap: type | None) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, hidden_states: Tensor) -> object:
        out = hidden_states + 1
        return out if self.wrap is None else self.wrap((out, "rest")) if self.wrap in (tuple, list) else {"h": out}


@pytest.mark.parametrize("wrap", [tuple, list, None])
def test_blocks_may_return_a_tensor_a_tuple_or_a_list(wrap: type | None) -> None:
    block = Odd(wrap)
    anatomy = SimpleNamespace(blocks=nn.ModuleList([block]), d_model=4)
    with tap(anatomy, [Site(-1), Site(0)], [add(0, 10.0), add(-1, 100.0)]) as trace:
        output = block(hidden_states=torch.zeros(1, 2, 4))
    assert trace[Site(-1)].unique().tolist() == [0.0]
    assert trace[Site(0)].unique().tolist() == [101.0]
    stream = output if wrap is None else output[0]
    assert stream.unique().tolist() == [111.0]
    assert wrap is None or (type(output) is wrap and output[1] == "rest")


def test_a_block_that_returns_something_else_is_named() -> None:
    anatomy = SimpleNamespace(blocks=nn.ModuleList([Odd(dict)]), d_model=4)
    with pytest.raises(SiteError, match="block 0 of this model gives dict, neither a tensor"), tap(anatomy, [Site(0)]):
        anatomy.blocks[0](torch.zeros(1, 2, 4))


def test_a_stream_of_another_width_is_named() -> None:
    anatomy = SimpleNamespace(blocks=nn.ModuleList([Odd(None)]), d_model=8)
    with (
        pytest.raises(SiteError, match=r"block 0 gives \[1, 2, 4\], not the \[batch, pos, 8\]"),
        tap(anatomy, [Site(0)]),
    ):
        anatomy.blocks[0](torch.zeros(1, 2, 4))


def test_a_reading_that_the_model_overwrites_later_is_an_error_and_not_a_lie() -> None:
    block = Odd(None)
    with tap(SimpleNamespace(blocks=nn.ModuleList([block]), d_model=4), [Site(0)]) as trace:
        block(torch.zeros(1, 2, 4)).add_(1)
    with pytest.raises(SiteError, match="block 0 was overwritten in place after it was read"):
        trace[Site(0)]


@pytest.mark.parametrize("layer", [-2, 4, 99])
def test_a_site_that_does_not_exist_is_an_error_that_says_which_do(model: Model, layer: int) -> None:
    with (
        pytest.raises(SiteError, match=rf"no such site: {layer}\. This model has blocks 0\.\.3, and -1 for the embed"),
        tap(model, [Site(layer)]),
    ):
        pass
    with pytest.raises(SiteError, match="no such site"), tap(model, edits=[add(layer, 1.0)]):
        pass


def test_a_site_that_was_not_asked_for_or_not_reached_is_an_error(model: Model) -> None:
    with tap(model, [Site(0)]) as trace:
        with pytest.raises(SiteError, match="block 0 was not reached: no forward pass ran"):
            trace[Site(0)]
        with pytest.raises(SiteError, match="block 1 was not read: this tap reads block 0"):
            trace[Site(1)]


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (
            lambda h: h[:, :2],
            r"edit 'bad' at block 1 got float32 \[3, 5, 32\] on cpu and returned float32 \[3, 2, 32\]",
        ),
        (lambda h: h.double(), r"got float32 \[3, 5, 32\] on cpu and returned float64 \[3, 5, 32\]"),
        (lambda h: h.to("meta"), r"returned float32 \[3, 5, 32\] on meta: an edit keeps shape, dtype and device"),
        (lambda h: None, "edit 'bad' at block 1 returned NoneType, not a tensor"),
        (lambda h: h.add_(1), "edit 'bad' at block 1 wrote into its argument: return a new tensor"),
    ],
)
def test_a_wrong_answer_of_an_edit_names_its_label_and_both_sides(model: Model, apply, message: str) -> None:
    with pytest.raises(EditError, match=message), tap(model, edits=[Edit(Site(1), apply, "bad")]):
        forward(model)


def test_rows_that_are_not_there_are_an_error(model: Model) -> None:
    with pytest.raises(EditError, match="edit 'add' names row 3 of a batch of 3 rows"):  # noqa: SIM117
        with tap(model, edits=[RowEdit(add(0, 1.0), [3])]):
            forward(model)


@pytest.mark.parametrize("rows", [[-1], [1, 1]])
def test_rows_are_counted_from_zero_and_stand_once(model: Model, rows: list[int]) -> None:
    with (
        pytest.raises(EditError, match=r"edit 'add' names rows .*: rows count from 0 and stand once"),
        tap(model, edits=[RowEdit(add(0, 1.0), rows)]),
    ):
        pass


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_edit_that_leaves_a_nan_or_an_infinity_is_an_error_on_leaving(model: Model, value: float) -> None:
    with (
        pytest.raises(NumericError, match="the residual stream is not finite after edit 'boom' at block 2"),
        tap(model, edits=[add(0, 1.0), add(2, value, "boom")]),
    ):
        forward(model)


def test_the_edit_at_work_is_named_after_a_crash(model: Model) -> None:
    taps = Taps(model)
    bad = RowEdit(Edit(Site(1), lambda h: h[0, 0, 10**9], "bad"), [2])
    taps.set(edits=[add(0, 1.0), bad])
    with pytest.raises(IndexError), taps.armed():
        forward(model)
    assert taps.acting is bad
    taps.close()
