"""The engine: the same text as transformers alone and in company, and no request ever feels another one."""

import random
import threading
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from ftw.substrate import reference
from ftw.substrate.engine import Chunk, Completion, Request, Sampling, TransformersEngine
from ftw.substrate.errors import ConfigError, NumericError, PromptTooLong, SiteError, UsageError
from ftw.substrate.events import Event, Finished, Requested, Steered, StepSeen
from ftw.substrate.model import Model
from ftw.substrate.taps import RowEdit, tap
from ftw.substrate.types import Controller, Edit, Site, Step


@pytest.fixture(scope="module")
def model() -> Model:
    return reference.tiny()


def prompts(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(32, 127) for _ in range(rng.randrange(1, 24))) for _ in range(count)]


def generated(model: Model, ids: Sequence[int], new: int) -> tuple[int, ...]:
    """What transformers' own greedy `generate` writes."""
    row = torch.tensor([list(ids)])
    out = model.net.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=new, do_sample=False, pad_token_id=0
    )
    return tuple(out[0, len(ids) :].tolist())


def run(engine: TransformersEngine) -> dict[str, list[Chunk]]:
    """Step until all is written; the chunks of each request."""
    chunks: dict[str, list[Chunk]] = {}
    while engine.has_work:
        for chunk in engine.step():
            chunks.setdefault(chunk.request_id, []).append(chunk)
    return chunks


def hooks(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.net.modules())


def add(layer: int, value: float, label: str = "add") -> Edit:
    return Edit(Site(layer), lambda h: h + value, label)


class Watch:
    """A controller that keeps its steps and answers what it is told to."""

    def __init__(self, sites: Sequence[Site] = (), answer: Callable[[Step], Sequence[Edit]] = lambda step: ()) -> None:
        self.sites = tuple(sites)
        self.answer = answer
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> Sequence[Edit]:
        self.steps.append(step)
        return self.answer(step)


class Shared(Watch):
    """A batch controller that keeps what it was given."""

    def __init__(self, sites: Sequence[Site] = (), answer: Callable[[Step], Sequence[Edit]] = lambda step: ()) -> None:
        super().__init__(sites, answer)
        self.calls: list[tuple[list[str], dict[Site, Tensor]]] = []

    def many(self, steps: Sequence[Step], resid: dict[Site, Tensor]) -> Sequence[Sequence[Edit]]:
        self.calls.append(([step.request_id for step in steps], dict(resid)))
        return [self(step) for step in steps]


def test_greedy_text_equals_generate_alone(model: Model) -> None:
    engine = TransformersEngine(model)
    for ids in prompts(4):
        assert engine.generate(Request(ids, max_new_tokens=12))[0].tokens == generated(model, ids, 12)


@pytest.mark.parametrize("max_batch", [64, 3])
def test_greedy_text_equals_generate_in_a_batch_that_joins_and_leaves(model: Model, max_batch: int) -> None:
    rng = random.Random(1)
    asked = [(ids, rng.randrange(1, 30)) for ids in prompts(14)]
    engine = TransformersEngine(model, max_batch=max_batch)
    names = [engine.submit(Request(ids, max_new_tokens=new)) for ids, new in asked[:5]]
    chunks: dict[str, list[int]] = {}
    late = list(asked[5:])
    while engine.has_work or late:
        if late and rng.random() < 0.4:
            ids, new = late.pop(0)
            names.append(engine.submit(Request(ids, max_new_tokens=new)))
        for chunk in engine.step():
            chunks.setdefault(chunk.request_id, []).append(chunk.token)
    for name, (ids, new) in zip(names, asked, strict=True):
        assert tuple(chunks[name]) == generated(model, ids, new)


def test_a_plain_run_is_bit_identical_to_generate(model: Model) -> None:
    ids = prompts(1)[0]
    row = torch.tensor([list(ids)])
    kept = {"output_logits": True, "return_dict_in_generate": True, "pad_token_id": 0}
    out = model.net.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=10, do_sample=False, **kept)
    want = [float(logits.log_softmax(-1).max()) for logits in out.logits]
    done = TransformersEngine(model).generate(Request(ids, max_new_tokens=10))[0]
    assert list(done.logprobs) == want


def test_a_plain_run_puts_no_hook_on_the_model_and_others_leave_none(model: Model) -> None:
    before, engine = hooks(model), TransformersEngine(model)
    engine.submit(Request((65,), max_new_tokens=4, ignore_eos=True))
    for _ in range(2):
        engine.step()
        assert hooks(model) == before
    watched = Watch([Site(0)])
    engine.submit(Request((66,), max_new_tokens=4, controllers=(watched,), edits=(add(1, 0.1),), ignore_eos=True))
    engine.step()
    assert hooks(model) > before
    run(engine)
    assert hooks(model) == before


def test_sampled_text_is_the_same_alone_and_in_company(model: Model) -> None:
    def mine(seed: int) -> Request:
        return Request((72, 105), 20, Sampling(temperature=1.0, top_p=0.9, seed=seed), ignore_eos=True)

    company = [Request(ids, 15, Sampling(temperature=2.0, seed=5)) for ids in prompts(4)]
    engine = TransformersEngine(model)
    alone = engine.generate(mine(7))[0].tokens
    assert engine.generate([*company[:2], mine(7), *company[2:]])[2].tokens == alone
    assert engine.generate(mine(8))[0].tokens != alone


def test_logprobs_are_the_models_own(model: Model) -> None:
    ids = prompts(1)[0]
    done = TransformersEngine(model).generate(Request(ids, 6, Sampling(temperature=1.5, top_k=4, seed=1)))[0]
    with torch.no_grad():
        logits = model.net(input_ids=torch.tensor([[*ids, *done.tokens]])).logits[0]
    want = logits.log_softmax(-1)[len(ids) - 1 : -1].gather(-1, torch.tensor(done.tokens)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(done.logprobs), want, atol=1e-4)


def test_the_end_token_ends_the_text_unless_it_is_ignored(model: Model) -> None:
    ids = prompts(1)[0]
    force = Edit(Site(model.n_layers - 1), lambda h: toward_eos(model, h), "end")
    done = TransformersEngine(model).generate(Request(ids, 5, edits=(force,)))[0]
    assert (done.tokens, done.text, done.reason) == ((257,), "", "stop")
    on = TransformersEngine(model).generate(Request(ids, 5, edits=(force,), ignore_eos=True))[0]
    assert (on.tokens, on.reason) == ((257,) * 5, "length")


def toward_eos(model: Model, h: Tensor) -> Tensor:
    """A state whose most likely next token is the end token."""
    return (model.net.lm_head.weight[257] / model.arch.tail[0].weight * 50).expand_as(h).contiguous()


def writes(model: Model, text: str) -> Controller:
    """A controller that makes the model write `text`, byte by byte, from the second token on."""
    ids = model.encode(text)[1:]
    head, norm = model.net.lm_head.weight, model.arch.tail[0].weight
    # the state whose logits are highest for a token, whatever the other rows of the head are
    wanted = torch.linalg.lstsq(head * norm, torch.eye(head.shape[0])[:, ids]).solution.T

    def answer(step: Step) -> Sequence[Edit]:
        if step.index >= len(ids):
            return ()
        state = wanted[step.index] * 1000
        return [Edit(Site(model.n_layers - 1), lambda h: state.expand_as(h).contiguous(), "write")]

    return Watch(answer=answer)


def test_text_streams_in_whole_characters_and_joins_to_the_text(model: Model) -> None:
    text = "a🙂é日b"
    new = len(text.encode()) + 1
    engine = TransformersEngine(model)
    request = Request((65,), new, controllers=(writes(model, text),), ignore_eos=True)
    chunks = list(engine.stream(request))
    tokens = [chunk.token for chunk in chunks]
    assert bytes(tokens[1:]).decode() == text
    first = chr(tokens[0])
    assert "".join(chunk.text for chunk in chunks) == first + text == model.decode(tokens)
    assert [chunk.text for chunk in chunks if chunk.text] == [first, *text]
    assert chunks[-1].finished == "length"


def test_a_stop_string_ends_the_text_and_never_leaks(model: Model) -> None:
    text = "one ST two STOP three"
    shown: list[str] = []
    engine = TransformersEngine(model)
    request = Request((65,), 40, stop=("STOP",), controllers=(writes(model, text),), ignore_eos=True)
    for chunk in engine.stream(request):
        shown.append(chunk.text)
        assert "STO" not in "".join(shown)
    assert "".join(shown)[1:] == "one ST two "
    assert chunk.finished == "stop"
    request = Request((65,), 40, stop=("STOP",), controllers=(writes(model, text),), ignore_eos=True)
    done = engine.generate(request)[0]
    assert (done.text[1:], done.reason) == ("one ST two ", "stop")
    assert bytes(done.tokens).endswith(b"STOP")


def test_what_was_held_for_a_stop_string_comes_out_at_the_end(model: Model) -> None:
    request = Request((65,), 6, stop=("STOP",), controllers=(writes(model, "xxSTO"),), ignore_eos=True)
    assert TransformersEngine(model).generate(request)[0].text.endswith("xxSTO")


def test_a_cancelled_request_ends_at_the_next_step_and_the_others_go_on(model: Model) -> None:
    engine = TransformersEngine(model, max_batch=2)
    ids = prompts(3)
    gone, stays, waits = (engine.submit(Request(one, max_new_tokens=8)) for one in ids)
    engine.step()
    engine.step()
    engine.cancel(gone)
    engine.cancel("nobody")
    chunks = run(engine)
    assert [(chunk.token, chunk.finished) for chunk in chunks[gone]] == [(-1, "cancelled")]
    assert chunks[stays][-1].finished == "length"
    assert tuple(chunk.token for chunk in chunks[waits]) == generated(model, ids[2], 8)
    late = engine.submit(Request(ids[0]))
    engine.cancel(late)
    assert [chunk.finished for chunk in run(engine)[late]] == ["cancelled"]


def test_leaving_a_stream_early_cancels_its_request(model: Model) -> None:
    engine = TransformersEngine(model)
    stream = engine.stream(Request((65, 66), max_new_tokens=50, ignore_eos=True))
    assert next(stream).token >= 0
    stream.close()
    assert not engine.has_work


def test_steps_tell_what_the_pass_saw(model: Model) -> None:
    sites = [Site(-1), Site(1), Site(3)]
    asked = [(ids, Watch(sites)) for ids in prompts(3)]
    batch = [Request(ids, 4, controllers=(watch,), ignore_eos=True) for ids, watch in asked]
    for (ids, watch), done in zip(asked, TransformersEngine(model).generate(batch), strict=True):
        assert [(step.index, step.phase) for step in watch.steps] == [(0, "prompt")] + [
            (i, "generate") for i in (1, 2, 3)
        ]
        assert watch.steps[0].input_ids.tolist() == list(ids)
        assert [step.token for step in watch.steps] == list(done.tokens)
        assert [step.input_ids.tolist() for step in watch.steps[1:]] == [[token] for token in done.tokens[:-1]]
        with tap(model, sites) as trace, torch.no_grad():
            logits = model.net(input_ids=torch.tensor([[*ids, *done.tokens[:-1]]])).logits[0]
        for site in sites:
            seen = torch.cat([step.resid[site] for step in watch.steps])
            assert torch.allclose(seen, trace[site][0], atol=1e-4)
        assert torch.allclose(torch.stack([s.logits for s in watch.steps]), logits[len(ids) - 1 :], atol=1e-4)


def test_edits_for_a_step_act_on_the_next_one_and_leave_the_past_alone(model: Model) -> None:
    ids, site = prompts(1)[0], Site(2)
    push = torch.linspace(-3, 3, model.d_model)
    once = Watch([site], lambda step: [Edit(Site(1), lambda h: h + push, "push")] if step.index == 1 else [])
    done = TransformersEngine(model).generate(Request(ids, 5, controllers=(once,), ignore_eos=True))[0]
    at = len(ids) + 1  # the token that step 1 chose is the input of step 2
    mask = torch.zeros(len(ids) + 4, 1)
    mask[at] = 1
    with tap(model, [site], [Edit(Site(1), lambda h: h + mask * push, "once")]) as trace, torch.no_grad():
        model.net(input_ids=torch.tensor([[*ids, *done.tokens[:-1]]]))
    seen = torch.cat([step.resid[site] for step in once.steps])
    assert torch.allclose(seen, trace[site][0], atol=1e-4)


def test_standing_edits_act_from_the_first_prompt_token(model: Model) -> None:
    ids, edit = prompts(1)[0], add(1, 0.7)
    watch = Watch([Site(2)])
    done = TransformersEngine(model).generate(Request(ids, 4, edits=(edit,), controllers=(watch,), ignore_eos=True))[0]
    with tap(model, [Site(2)], [edit]) as trace, torch.no_grad():
        logits = model.net(input_ids=torch.tensor([[*ids, *done.tokens[:-1]]])).logits[0]
    assert torch.allclose(torch.cat([step.resid[Site(2)] for step in watch.steps]), trace[Site(2)][0], atol=1e-4)
    assert logits[len(ids) - 1 :].argmax(-1).tolist() == list(done.tokens)


def test_a_controller_never_sees_its_own_edit_at_its_site(model: Model) -> None:
    site = Site(1)
    calm, steering = Watch([site]), Watch([site], lambda step: [add(1, 100.0)])
    ids = prompts(1)[0]
    for watch in (calm, steering):
        TransformersEngine(model).generate(Request(ids, 2, controllers=(watch,), ignore_eos=True))
    if calm.steps[0].token == steering.steps[0].token:
        assert torch.equal(calm.steps[1].resid[site], steering.steps[1].resid[site])


def test_one_requests_edits_never_touch_another_row(model: Model) -> None:
    ids = prompts(5)
    wild = Watch(answer=lambda step: [add(0, 50.0), add(2, -80.0)])
    batch = [Request(one, 10) for one in ids]
    batch[2] = Request(ids[2], 10, edits=(add(1, 30.0),), controllers=(wild,))
    done = TransformersEngine(model).generate(batch)
    for i in (0, 1, 3, 4):
        assert done[i].tokens == generated(model, ids[i], 10)


def test_controllers_are_asked_in_order_and_the_last_ones_edits_apply_last(model: Model) -> None:
    order: list[str] = []

    def named(name: str, kind: type[Watch]) -> Watch:
        def answer(step: Step) -> Sequence[Edit]:
            order.append(name)

            def note(h: Tensor) -> Tensor:
                order.append(f"edit {name}")
                return h + 0.0

            return [Edit(Site(1), note, name)]

        return kind(answer=answer)

    chain = tuple(named(name, kind) for name, kind in (("a", Watch), ("b", Shared), ("c", Watch), ("d", Shared)))
    TransformersEngine(model).generate(Request((65,), 2, controllers=chain, ignore_eos=True))
    assert order == [*"abcd", "edit a", "edit b", "edit c", "edit d", *"abcd"]


def test_a_shared_batch_controller_is_called_once_per_step_with_one_row_per_request(model: Model) -> None:
    shared, site = Shared([Site(2)]), Site(2)
    engine = TransformersEngine(model)
    names = [engine.submit(Request(ids, 3, controllers=(shared,), ignore_eos=True)) for ids in prompts(3)]
    engine.step()
    late = engine.submit(Request((65, 66), 3, controllers=(shared,), ignore_eos=True))
    engine.submit(Request((67,), 3, ignore_eos=True))
    run(engine)
    assert [sorted(who) for who, _ in shared.calls] == [sorted(names), *[sorted([*names, late])] * 2, [late]]
    steps = iter(shared.steps)
    for who, resid in shared.calls:
        assert resid[site].shape == (len(who), model.d_model)
        for row, name in enumerate(who):
            step = next(steps)
            assert step.request_id == name
            assert torch.equal(step.resid[site][-1], resid[site][row])


def test_a_ring_of_shared_controllers_does_not_hang(model: Model) -> None:
    one, two = Shared(), Shared()
    batch = [Request((65,), 2, controllers=pair, ignore_eos=True) for pair in ((one, two), (two, one))]
    TransformersEngine(model).generate(batch)
    assert len(one.steps) == len(two.steps) == 4


def fails(step: Step) -> Sequence[Edit]:
    if step.index == 2:
        raise ZeroDivisionError("the controller is broken")
    return ()


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (lambda: {"controllers": (Watch(answer=fails),)}, ZeroDivisionError),
        (lambda: {"controllers": (Shared(answer=fails),)}, ZeroDivisionError),
        (lambda: {"controllers": (Watch(answer=lambda step: [add(99, 1.0)]),)}, SiteError),
        (lambda: {"controllers": (Watch(answer=lambda step: [Edit(Site(0), lambda h: h[10**9], "e")]),)}, IndexError),
        (lambda: {"edits": (Edit(Site(0), lambda h: h[10**9], "e"),)}, IndexError),
        (lambda: {"edits": (Edit(Site(0), lambda h: h * torch.nan, "nan"),)}, NumericError),
    ],
)
def test_what_fails_in_one_request_is_raised_to_its_caller_and_the_others_go_on(
    model: Model, bad: Callable[[], dict], error: type[Exception]
) -> None:
    told: list[Event] = []
    engine = TransformersEngine(model, sinks=[told.append])
    ids = prompts(4)
    fine = [engine.submit(Request(one, 8)) for one in ids]
    engine.step()
    with pytest.raises(error):
        list(engine.stream(Request(ids[0], 8, id="bad", ignore_eos=True, **bad())))
    assert [event.reason for event in told if isinstance(event, Finished) and event.request_id == "bad"] == ["error"]
    again = engine.submit(Request(ids[1], 8))  # takes a slot that the failed one may have left NaN in
    run(engine)
    seen: dict[str, list[int]] = {}
    for event in told:
        if isinstance(event, StepSeen):
            seen.setdefault(event.request_id, []).append(event.token)
    for name, one in zip([*fine, again], [*ids, ids[1]], strict=True):
        assert tuple(seen[name]) == generated(model, one, 8)


def test_generate_writes_the_others_to_their_end_before_it_raises(model: Model) -> None:
    told: list[Event] = []
    engine = TransformersEngine(model, sinks=[told.append])
    with pytest.raises(ZeroDivisionError) as raised:
        engine.generate([Request((65,), 9, controllers=(Watch(answer=fails),), ignore_eos=True), Request((66, 67), 9)])
    assert "after 3 tokens" in raised.value.__notes__[0]
    assert {event.reason for event in told if isinstance(event, Finished)} >= {"error"}
    assert sum(isinstance(event, Finished) for event in told) == 2


def test_a_shared_controller_that_answers_for_too_few_is_named(model: Model) -> None:
    class Short(Shared):
        def many(self, steps: Sequence[Step], resid: dict[Site, Tensor]) -> Sequence[Sequence[Edit]]:
            return []

    with pytest.raises(UsageError, match=r"Short\.many answered 0 of 1 steps: one sequence of edits per step"):
        TransformersEngine(model).generate(Request((65,), controllers=(Short(),)))


def test_a_nan_names_the_edits_that_acted(model: Model) -> None:
    request = Request((65,), edits=(Edit(Site(0), lambda h: h * torch.nan, "boom"),), id="mine")
    with pytest.raises(NumericError, match="the logits of request mine hold a NaN or infinity after edits 'boom'"):
        TransformersEngine(model).generate(request)


def test_sinks_are_told_in_order(model: Model) -> None:
    told: list[Event] = []
    engine = TransformersEngine(model, sinks=[told.append])
    steer = Watch(answer=lambda step: [add(1, 0.1, "up")] if step.index == 0 else [])
    done = engine.generate(
        Request((65, 66), 3, edits=(add(0, 0.1, "base"),), controllers=(steer,), id="r", ignore_eos=True)
    )
    tokens = done[0].tokens
    assert told == [
        Requested("r", 2, 3),
        StepSeen("r", 0, tokens[0], ("base",)),
        Steered("r", 0, ("up",)),
        StepSeen("r", 1, tokens[1], ("base", "up")),
        StepSeen("r", 2, tokens[2], ("base",)),
        Finished("r", "length", 3),
    ]


def test_a_failing_sink_stops_the_step_and_the_engine_goes_on(model: Model) -> None:
    angry = True

    def sink(event: Event) -> None:
        if angry and isinstance(event, StepSeen):
            raise OSError("disk full")

    engine = TransformersEngine(model, sinks=[sink])
    name = engine.submit(Request((65, 66), 4, ignore_eos=True))
    with pytest.raises(OSError, match="disk full"):
        engine.step()
    angry = False
    tokens = [chunk.token for chunk in run(engine)[name]]
    assert tokens == list(TransformersEngine(model).generate(Request((65, 66), 4, ignore_eos=True))[0].tokens)


def test_a_failure_of_the_model_itself_is_raised_and_can_be_tried_again(model: Model, monkeypatch) -> None:
    ids = prompts(3)
    engine = TransformersEngine(model)
    names = [engine.submit(Request(one, 8)) for one in ids[:2]]
    chunks: list[Chunk] = [*engine.step(), *engine.step()]
    names.append(engine.submit(Request(ids[2], 8)))
    forward = model.net.forward

    def broken(*args: object, **kwargs: object) -> object:
        raise MemoryError("no room")

    monkeypatch.setattr(model.net.model.layers[2].mlp, "forward", broken)
    with pytest.raises(MemoryError):
        engine.step()
    monkeypatch.undo()
    assert model.net.forward == forward
    while engine.has_work:
        chunks += engine.step()
    for name, one in zip(names, ids, strict=True):
        assert tuple(c.token for c in chunks if c.request_id == name) == generated(model, one, 8)


def joined(model: Model, lengths: Sequence[int]) -> list[int]:
    """At which step the last two of these requests join a batch of eight."""
    engine = TransformersEngine(model, max_batch=8)
    names = [engine.submit(Request((65,), new, ignore_eos=True)) for new in lengths]
    first: dict[str, int] = {}
    for step in range(40):
        for chunk in engine.step():
            first.setdefault(chunk.request_id, step)
    return [first[name] for name in names[-2:]]


def test_requests_that_wait_for_a_full_batch_join_together(model: Model) -> None:
    assert joined(model, [2, 4, *[12] * 6, 3, 3]) == [4, 4]


def test_a_waiting_request_is_not_kept_waiting_for_company(model: Model) -> None:
    early, late = joined(model, [2, *[20] * 7, 3, 3])
    assert early == 2 + 4
    assert late > early


def test_threads_may_stream_from_one_engine(model: Model) -> None:
    engine, ids = TransformersEngine(model), prompts(4)
    results: dict[int, list[int]] = {}

    def reader(i: int) -> None:
        results[i] = [chunk.token for chunk in engine.stream(Request(ids[i], 10))]

    threads = [threading.Thread(target=reader, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i in range(4):
        assert tuple(results[i]) == generated(model, ids[i], 10)


def test_two_streams_in_turn_miss_nothing(model: Model) -> None:
    engine, ids = TransformersEngine(model), prompts(2)
    streams = [engine.stream(Request(one, 6)) for one in ids]
    got: list[list[int]] = [[], []]
    for _ in range(6):
        for i, stream in enumerate(streams):
            got[i] += [chunk.token for chunk in [next(stream, None)] if chunk is not None]
    assert [tuple(one) for one in got] == [generated(model, one, 6) for one in ids]


def test_an_outer_tap_sees_the_engines_passes(model: Model) -> None:
    with tap(model, [Site(0)], [RowEdit(add(0, 2.0), [0])], grad=False) as trace:
        inside = TransformersEngine(model).generate(Request((65, 66), 4, ignore_eos=True))[0]
    assert trace[Site(0)].shape == (1, 1, model.d_model)
    assert (
        inside.tokens
        == TransformersEngine(model).generate(Request((65, 66), 4, edits=(add(0, 2.0),), ignore_eos=True))[0].tokens
    )


def test_completions_come_in_the_order_of_the_requests(model: Model) -> None:
    batch = [Request(ids, new) for ids, new in zip(prompts(4), (9, 1, 5, 2), strict=True)]
    done = TransformersEngine(model).generate(batch)
    assert [one.request_id for one in done] == [request.id for request in batch]
    assert all(isinstance(one, Completion) and one.text == model.decode(one.tokens) for one in done)


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(model: Model) -> None:
    with pytest.raises(PromptTooLong, match="250 prompt tokens and 7 new ones are 257: tiny holds 256"):
        TransformersEngine(model).submit(Request((65,) * 250, 7))
    TransformersEngine(model).generate(Request((65,) * 250, 6))


def test_bad_requests_are_refused_with_the_way_out(model: Model) -> None:
    engine = TransformersEngine(model)
    with pytest.raises(ConfigError, match="the prompt is empty: a model continues at least one token"):
        Request(())
    with pytest.raises(ConfigError, match="max_new_tokens is 0: at least 1 token is written"):
        Request((1,), 0)
    with pytest.raises(ConfigError, match="a stop string is empty"):
        Request((1,), stop=("a", ""))
    with pytest.raises(ConfigError, match=r"token ids outside 0\.\.258: was it encoded for tiny\?"):
        engine.submit(Request((259,)))
    with pytest.raises(SiteError, match="no such site: 7"):
        engine.submit(Request((1,), edits=(add(7, 1.0),)))
    with pytest.raises(SiteError, match="no such site: 8"):
        engine.submit(Request((1,), controllers=(Watch([Site(8)]),)))
    engine.submit(Request((1,), id="twice"))
    with pytest.raises(ConfigError, match="request id 'twice' is already running"):
        engine.submit(Request((1,), id="twice"))
    with pytest.raises(ConfigError, match="max_batch is 0: at least one request runs at a time"):
        TransformersEngine(model, max_batch=0)
    bare = reference.tiny()
    bare.tokenizer = None
    with pytest.raises(ConfigError, match="tiny has no tokenizer: stop strings need one"):
        TransformersEngine(bare).submit(Request((1,), stop=("x",)))
    assert TransformersEngine(bare).generate(Request((65,), 3))[0].text == ""
