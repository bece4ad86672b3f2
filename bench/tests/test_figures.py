"""What load clients say is read as they mean it, and figures are computed as promised."""

import unittest

from bench.lib import report, rows, stats
from bench.lib.loads import parse_h2load, parse_own, parse_wrk
from bench.lib.measure import Sample, contenders
from bench.lib.rows import ROWS, Goal

_WRK = """\
Running 4s test @ http://127.0.0.1:21000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.20ms    0.89ms  12.31ms   91.00%
    Req/Sec    49.47k     2.10k   53.00k    80.00%
  Latency Distribution
     50%  998.00us
     75%    1.31ms
     90%    1.92ms
     99%    5.01ms
  196934 requests in 4.02s, 42.10MB read
"""
_H2LOAD = """\
finished in 4.01s, 69000.25 req/s, 7.91MB/s
requests: 276001 total, 276801 started, 276001 done, 276000 succeeded, 1 failed, 0 errored, 2 timeout
status codes: 276000 2xx, 0 3xx, 0 4xx, 1 5xx
"""


class Parsing(unittest.TestCase):
    def test_wrk_tells_requests_time_and_percentiles(self):
        found = parse_wrk(_WRK)
        self.assertEqual((found.requests, found.errors, found.seconds), (196_934, 0, 4.02))
        self.assertAlmostEqual(found.p50_us, 998)
        self.assertAlmostEqual(found.p99_us, 5_010)

    def test_what_wrk_counts_as_errors_is_counted(self):
        found = parse_wrk(_WRK + "  Socket errors: connect 1, read 2, write 3, timeout 4\n"
                                 "  Non-2xx or 3xx responses: 5\n")
        self.assertEqual(found.errors, 15)

    def test_h2load_counts_only_what_succeeded(self):
        found = parse_h2load(_H2LOAD)
        self.assertEqual((found.requests, found.errors, found.seconds), (276_000, 3, 4.01))

    def test_our_own_client_speaks_json(self):
        found = parse_own('{"requests": 5, "seconds": 1.5, "errors": 0, "resumed": 0, '
                          '"p50_us": 12.5, "p99_us": 20.0, "last_error": ""}')
        self.assertEqual((found.requests, found.seconds, found.p50_us), (5, 1.5, 12.5))


class Figures(unittest.TestCase):
    def samples(self, **costs: list[float]) -> list[Sample]:
        return [Sample("small-64", name, i, 100, cpu_us=cost)
                for name, each in costs.items() for i, cost in enumerate(each)]

    def test_a_ratio_is_the_median_of_the_rounds_ratios(self):
        # A disturbed round doubles both, and so does not matter.
        samples = self.samples(nginx=[10, 20, 10], tidegate=[8, 16, 9])
        found = stats.ratio(samples, "small-64", "tidegate", "nginx", "cpu_us")
        self.assertAlmostEqual(found, 0.8)

    def test_a_value_is_the_median_with_its_ends(self):
        samples = self.samples(nginx=[11, 30, 10])
        self.assertEqual(str(stats.value(samples, "small-64", "nginx", "cpu_us")),
                         "11.0 (10.0–30.0)")

    def test_a_goal_against_ourselves_compares_the_same_binary(self):
        [row] = [row for row in ROWS if row.name == "policies"]
        samples = [Sample("policies", label, 0, 1, cpu_us=cost) for label, cost in
                   {"old": 12, "old:plain": 10, "new": 30, "new:plain": 20}.items()]
        goal = Goal(1.25, reference="tidegate:plain")
        self.assertAlmostEqual(stats.reached(samples, row, goal, "old"), 1.2)
        self.assertAlmostEqual(stats.reached(samples, row, goal, "new"), 1.5)

    def test_a_missed_goal_is_on_the_page(self):
        facts = {"cores": 2, "processor": "x", "memory_gb": 1, "kernel": "Linux", "minutes": 1,
                 "versions": {}, "slices": {"rounds": 1, "seconds": 1}}
        page = report.page(facts, self.samples(nginx=[10], tidegate=[9]))
        self.assertIn("0.90 times nginx instead of 0.85", page)
        page = report.page(facts, self.samples(nginx=[10], tidegate=[8]))
        self.assertNotIn("missed", page)


class Rows(unittest.TestCase):
    def test_names_are_unique_and_can_be_chosen(self):
        names = [row.name for row in ROWS]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual([row.name for row in rows.choose(["tls", "grpc"], False)],
                         ["tls", "grpc"])

    def test_every_binary_takes_part_under_its_name(self):
        [row] = [row for row in ROWS if row.name == "hosts"]
        found = contenders(row, {"nginx", "tidegate"}, {"old": None, "new": None})
        self.assertEqual([one.label for one in found],
                         ["nginx", "old", "new", "old:plain", "new:plain"])


if __name__ == "__main__":
    unittest.main()
