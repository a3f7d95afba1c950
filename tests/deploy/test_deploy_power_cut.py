"""A power cut between any two changes of the file system leaves a whole release live."""

from __future__ import annotations

import pickle
import random
import shutil
from pathlib import Path

import pytest

from support.board import live_content, make_artifact, make_wheel, quick_options
from support.faulty_agent import FaultyTransport, faulty_agents
from support.power_cut import CUTS, Model, load
from tatvpr_edge.deploy.push import deploy, rollback

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("what", ["first deploy", "deploy and collect", "rollback", "back"])
def test_every_prefix_of_the_calls_leaves_the_old_release_or_the_new_one(
    ram_path: Path, what: str
) -> None:
    wheel = make_wheel(ram_path)
    artifacts = {
        name: make_artifact(ram_path / name, name.encode(), behaviour)
        for name, behaviour in (("a", ""), ("b", ""), ("c", ""), ("bad", "service-wrong"))
    }
    hashes = {name: artifact.manifest.model.hash for name, artifact in artifacts.items()}
    root, journal = ram_path / "root", ram_path / "journal"
    options = quick_options(root, wheel, keep=2, settle_s=0.0)
    with faulty_agents(ram_path) as agents:
        for name in () if what == "first deploy" else ("a", "b"):
            deploy(FaultyTransport(agents), artifacts[name], None, options)
        before = load(root)
        recording = FaultyTransport(agents, {"record": str(journal)})
        if what == "rollback":
            rollback(recording, None, options)
        elif what == "back":
            with pytest.raises(Exception, match="went back"):
                deploy(recording, artifacts["bad"], None, options)
        else:
            deploy(recording, artifacts["c"], None, options)
        allowed = {
            "first deploy": {None, hashes["c"]},
            "deploy and collect": {hashes["b"], hashes["c"]},
            "rollback": {hashes["b"], hashes["a"]},
            "back": {hashes["b"], hashes["bad"]},
        }[what]
        assert live_content(root) in allowed

        calls = []
        with open(journal, "rb") as source:
            while source.peek(1):
                calls.append(pickle.load(source))
        model = Model(str(root), before)
        chance = random.Random(what)
        states, served, deployed_after = 0, set(), 0
        for number, call in enumerate([None, *calls]):
            if call is not None:
                model.apply(*call)
            for cut in CUTS:
                disk = ram_path / "disk"
                model.write_out(disk, cut, chance)
                live = live_content(disk)
                assert live in allowed, (what, number, call and call[0], cut)
                states += 1
                served.add(live)
                if number % 10 == 9 and cut == CUTS[number // 10 % 3]:
                    again = quick_options(disk, wheel, keep=2, settle_s=0.0)
                    deploy(FaultyTransport(agents), artifacts["c"], None, again)
                    assert live_content(disk) == hashes["c"]
                    deployed_after += 1
                shutil.rmtree(disk)
    print(
        f"\npower cut, {what}: {len(calls)} calls, {states} states of the disk, all whole; "
        f"{deployed_after} deployed again"
    )
    assert states == len(CUTS) * (len(calls) + 1) and deployed_after > 0
    # Both sides of the switch were seen, or the cuts prove nothing.
    assert served == allowed
