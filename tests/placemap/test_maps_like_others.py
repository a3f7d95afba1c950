"""``MapWriter(like=...)``: a new map takes of another one what its places do not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.artifacts import scenes
from support.calibrated_map import calibrated_map
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.placemap import Band, MapInfo, write_map


class TestAMapLikeAnother:
    """A robot that begins with nothing takes the calibration of another map."""

    def test_it_takes_everything_but_the_places(self, tiny_host: Path, tmp_path: Path) -> None:
        info = calibrated_map(tiny_host, tmp_path / "a.placemap")
        with MapWriter(tmp_path / "b.placemap", tiny_host, like=tmp_path / "a.placemap") as writer:
            writer.add(scenes(1)[0])
        made = PlaceMap(tmp_path / "b.placemap")
        assert made.info == info and len(made) == 1

    def test_its_places_have_no_neighbours_yet_where_those_of_the_other_have(
        self, tiny_host: Path, tmp_path: Path
    ) -> None:
        """Else `map lean` would refuse it: a second time blurs."""
        with Localizer(tiny_host) as localizer:
            model = localizer.artifact.manifest.model
            bands = (Band.accepting(1.0, 1.0, 0.5),)
            info = MapInfo(model.hash, "int8", model.descriptor_size, bands, neighbours=True)
            write_map(tmp_path / "a.placemap", info, [])
            MapWriter(tmp_path / "b.placemap", localizer, like=tmp_path / "a.placemap").close()
        assert PlaceMap(tmp_path / "b.placemap").info == replace(info, neighbours=False)

    def test_that_the_other_knows_nothing_either_is_said_once(
        self, tiny_host: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        bare, made = tmp_path / "a.placemap", tmp_path / "b.placemap"
        with Localizer(tiny_host) as localizer:
            MapWriter(bare, localizer).close()
            for _ in range(2):
                MapWriter(made, localizer, like=bare).close()
            for beside in ({"kind": "binary"}, {"bands": [(1.0, 1.0)]}, {"pose_frame": "local"}):
                with pytest.raises(UsageError, match=f"{next(iter(beside))} and like"):
                    MapWriter(tmp_path / "other", localizer, like=bare, **beside)  # type: ignore[arg-type]
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1 and f"map calibrate {bare}" in said[0]

    def test_of_another_model_it_is_refused_and_nothing_is_made(
        self, tiny_host: Path, tmp_path: Path
    ) -> None:
        info = MapInfo("ab" * 32, "int8", 64, (Band(1.0),))
        write_map(tmp_path / "a.placemap", info, [])
        with pytest.raises(MapError, match="model"):
            MapWriter(tmp_path / "b.placemap", tiny_host, like=tmp_path / "a.placemap")
        assert not (tmp_path / "b.placemap").exists()
