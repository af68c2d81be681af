"""gradcheck: check every gradient of this library."""

import json

from ..backend import UsageError
from ..check.selfcheck import selfcheck


def run(args):
    reports, columns = [], ("method", "error", "tolerance", "passed")
    for kind, report in selfcheck(args.pattern):
        reports.append({"name": report.name, "kind": kind} | {column: getattr(report, column) for column in columns})
        if not args.json:
            print(f"{kind:<10} {report}", flush=True)
    if not reports:
        raise UsageError(f"gradcheck: nothing has {args.pattern!r} in its name; leave PATTERN out to check everything")
    failed = sum(not report["passed"] for report in reports)
    if args.json:
        for report in reports:  # JSON has neither infinity nor nan
            report["error"] = report["error"] if report["error"] < 1e308 else 1e308
        print(json.dumps(reports, indent=1))
    else:
        worst = max(report["error"] for report in reports)
        print(f"{len(reports) - failed} passed, {failed} failed; worst error {worst:.1e}")
    return 1 if failed else 0
