"""What scoring keeps in memory."""

import numpy as np
import pytest

from data import ImageSet
from results import Results
from utils import to_float

pytestmark = pytest.mark.unit


def test_pictures_that_are_kept_do_not_keep_their_batches(trained, queries, tmp_path):
    batch = to_float(queries[0][:20])
    found = trained.anomaly_detector(batch)
    with Results(tmp_path, ImageSet.from_array(batch), trained, trained.normal_scores()) as results:
        results.add(np.arange(20), batch, found)
    for best in (results._most, results._least, results._nearest):
        assert best.ranked()
        for _, *arrays in best.ranked():
            for mine, whole in zip(
                arrays, (batch, found.reconstruction, found.anomaly_map), strict=True
            ):
                assert mine.shape == whole.shape[1:] and not np.shares_memory(mine, whole)


def test_the_most_anomalous_are_kept_in_order(trained, queries, tmp_path):
    batch = to_float(queries[0])
    found = trained.anomaly_detector(batch)
    with Results(tmp_path, ImageSet.from_array(batch), trained, pictures=3) as results:
        results._most.count = 3
        for start in range(0, 80, 20):
            part = slice(start, start + 20)
            results.add(
                np.arange(80)[part],
                batch[part],
                type(found)(*(None if v is None else v[part] for v in found)),
            )
    order = np.argsort(-found.score, kind="stable")[:3]
    assert [place for place, *_ in results._most.ranked()] == order.tolist()
    np.testing.assert_array_equal(results._most.ranked()[0][1], batch[order[0]])
