"""The faults that a data plane meets, by number, and the tests that inject them.

F1 to F17, F27, F29 and F30 are in ``test_faults_backends``, ``test_faults_clients`` and ``test_faults_mirrors``, each
through a whole worker: what the client saw, what was logged, and that the pool is whole after. For some more is proved
elsewhere, and others need several processes or none:

F8   tests/gateway/proxy/client/test_upstream_cancel.py    test_three_thousand_cancelled_calls_leave_the_capacity_unchanged
F10  tests/gateway/proxy/server/test_edge_limits.py        test_a_body_that_drips_below_the_least_rate_is_408_and_one_that_keeps_it_up_is_not
F11  tests/gateway/proxy/limits/test_admission.py          test_five_times_the_load_leaves_more_than_half_of_the_answers
F11  tests/gateway/proxy/test_overload.py                  test_health_and_feedback_are_answered_while_requests_are_turned_away
F14  tests/gateway/proxy/exchange/test_mirrors_tee.py      test_a_mirror_that_hangs_or_dies_changes_nothing_of_an_upload
F16  tests/gateway/proxy/client/test_health.py             test_a_replica_that_flaps_is_out_longer_each_time_and_one_that_was_well_long_enough_begins_anew
F16  tests/gateway/proxy/client/test_health.py             test_no_more_than_the_share_is_ejected_and_never_the_only_one
F21  tests/gateway/proxy/test_worker.py                    test_a_request_keeps_the_snapshot_it_began_with
F22  tests/policies/test_plans.py                          test_a_sticky_unit_meets_one_variant_in_all_its_requests
F22  tests/policies/test_canary.py                         test_raising_the_share_never_sends_a_unit_back
F23  tests/gateway/proxy/test_worker.py                    test_a_snapshot_that_cannot_be_read_leaves_the_old_one_in_force
F23  tests/stories/test_reload.py                          test_a_reload_swaps_a_good_file_whole_and_refuses_a_broken_one_whole
F24  tests/gateway/proxy/test_worker.py                    test_each_id_received_has_one_row_though_workers_are_killed
F24  tests/stories/test_killed_processes.py                test_every_answer_that_was_received_is_stored_once_though_workers_and_controller_are_killed
F25  tests/stories/test_drain.py                           test_a_stop_under_load_breaks_no_request_that_was_taken_and_every_answer_has_its_row
F25  tests/stories/test_drain.py                           test_a_stream_that_does_not_end_is_ended_at_the_deadline_and_the_exit_is_clean
F26  tests/gateway/proxy/test_worker_journal.py            test_a_broken_disk_is_like_a_full_journal_and_heals_by_itself
F26  tests/stories/test_without_a_store.py                 test_traffic_is_answered_while_the_store_cannot_be_opened_and_its_rows_arrive_once_it_can
F28  tests/stories/test_drain.py                           test_a_worker_that_is_killed_takes_its_own_connections_and_no_others_and_is_replaced
F28  tests/gateway/admin/metrics/test_metrics.py           test_a_worker_that_restarts_counts_from_zero_and_takes_nothing_back
F29  tests/gateway/proxy/client/test_upstream_place.py     test_a_connection_that_is_old_takes_no_other_call

F18 to F20 are faults of experiments (a canary that only fails, no traffic, no metrics): the control plane's.
"""  # noqa: E501

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
#: What concerns the data plane.
FAULTS = {*range(1, 18), *range(21, 31)}


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_a_test_and_those_that_are_named_exist() -> None:
    elsewhere = re.findall(r"^F(\d+) +(\S+) +(test_\w+)$", __doc__, re.MULTILINE)
    for _, path, name in elsewhere:
        assert name in names_in(ROOT / path), (path, name)
    here = {name for path in HERE.glob("test_faults_*.py") for name in names_in(path)}
    numbered = {int(found[1]) for name in here if (found := re.match(r"test_f(\d+)_", name))}
    assert numbered == {*range(1, 18), 27, 29, 30}
    assert numbered | {int(fault) for fault, _, _ in elsewhere} == FAULTS
