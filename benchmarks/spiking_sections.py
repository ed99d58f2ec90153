"""Measured runs of spiking networks: a section of docs/results.md, rows of the README, tables of docs/stop.md."""

from math import sqrt

from benchmarks.ablation import spread
from benchmarks.figures import NONE, Documents, Record, budgets, parameters, root_of, seeds_of, shown, table, tests

UNMEASURED = "No finished run has been collected yet."
SETS = {"digits": "Digits", "nmnist": "N-MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
NETWORKS = {
    "spiking_mlp": "perceptron",
    "spiking_lenet5": "LeNet-5",
    "spiking_vgg11": "VGG-11",
    "spiking_resnet18": "ResNet-18",
}
RULES = {"stop": "STOP", "osstop": "OSSTOP", "ottt": "OTTT", "sltt": "SLTT", "bptt": "BPTT"}
LEARNT = ("W", "WT", "WL", "WTL")
HEAD = [
    "rule", "learns", "accuracy %", "less that of BPTT, points", "spikes a neuron and step", "settled at step",
    "energy on paper, nJ", "seeds",
]  # fmt: skip


def is_spiking(record: Record) -> bool:
    """Whether a record is of a network of spiking neurons."""
    return "firing_rate" in record["metrics"]


def studies(documents: Documents) -> list[list[list[Record]]]:
    """Test evaluations that compare: of each data set and network, the runs of each rule and what it learns."""
    groups = tests(documents, lambda r: is_spiking(r) and bool(r["updates"]))
    alike: dict[str, list[list[Record]]] = {}
    for group in groups:
        alike.setdefault(title(group[0]), []).append(group)
    return [sorted(each, key=_order) for each in alike.values()]


def _order(group: list[Record]) -> tuple[int, int]:
    rule, learns = setting(group[0])
    return list(RULES).index(rule), LEARNT.index(learns) if learns in LEARNT else len(LEARNT)


def setting(record: Record) -> tuple[str, str]:
    """The rule and what it teaches."""
    options = record.get("options") or {}
    return options.get("rule", "stop"), options.get("learn", "WTL")


def title(record: Record) -> str:
    """What was looked at, by which network: ``N-MNIST, LeNet-5 of width 12, T = 10``."""
    network, data, options = record["network"] or {}, record["data"], record.get("options") or {}
    by_row = options.get("encoding") == "rows"
    name = SETS.get(root_of(record), root_of(record))
    parts = [f"{name} row by row" if by_row else name, NETWORKS.get(network.get("type", ""), network.get("type", ""))]
    if "width" in network:
        parts[-1] += f" of width {network['width']}"
    elif network.get("hidden"):
        parts[-1] += f" of {'-'.join(map(str, network['hidden']))} hidden neurons"
    if network.get("output", "spikes") != "spikes":
        parts[-1] += f" that ends in {'leaky logits' if network['output'] == 'leaky' else 'logits'}"
    steps = data.get("frames") or network.get("steps")
    return ", ".join([*parts, f"T = {steps}"] if steps and not by_row else parts)


def spiking(documents: Documents) -> list[str]:
    """The section of docs/results.md."""
    found = studies(documents)
    lines = ["## Spiking networks", "", *_tables(documents)]
    groups = [group for study in found for group in study]
    return [*lines, *budgets(documents, groups, "samples"), "What the rules are: [stop.md](stop.md).", ""]


def spiking_block(_: str, documents: Documents) -> str:
    """The same tables for another page."""
    return "\n".join(_tables(documents)).rstrip()


def _tables(documents: Documents) -> list[str]:
    lines: list[str] = []
    for study in studies(documents):
        first = study[0][0]
        rate = sum(r["metrics"]["accuracy"] for group in study for r in group) / sum(map(len, study))
        error = 100 * sqrt(rate * (1 - rate) / first["samples"])
        lines += [
            f"**{title(first)}**, {first['samples']:,} test samples (standard error of a share counted on so many: "
            f"{error:.1f} points), {parameters(first)} parameters:",
            "",
            *table(HEAD, [_row(group, study) for group in study], left=2),
        ]
    return lines or [UNMEASURED, ""]


def _row(group: list[Record], study: list[list[Record]]) -> list[str]:
    rule, learns = setting(group[0])
    return [
        RULES[rule], learns, shown("accuracy", group), beside_bptt(group, study),
        spread([r["metrics"]["firing_rate"] for r in group], 3), spread([r["metrics"]["decided"] for r in group], 1),
        spread([r["metrics"]["energy_nj"] for r in group], 0), seeds_of(group),
    ]  # fmt: skip


def beside_bptt(group: list[Record], study: list[list[Record]]) -> str:
    """Accuracy less that of BPTT that learns the same, seed by seed, or a dash where there is none."""
    rule, learns = setting(group[0])
    other = next((each for each in study if setting(each[0]) == ("bptt", learns)), None)
    if rule == "bptt" or other is None:
        return NONE
    theirs = {record["seed"]: record["metrics"]["accuracy"] for record in other}
    apart = [100 * (r["metrics"]["accuracy"] - theirs[r["seed"]]) for r in group if r["seed"] in theirs]
    return spread(apart, 2) if apart else NONE


def readme_rows(documents: Documents) -> list[list[str]]:
    """Rows of the README's table: of the first comparison, STOP of everything beside BPTT of everything."""
    rows = []
    for study in studies(documents)[:1]:
        for group in study:
            rule, learns = setting(group[0])
            if learns == "WTL":
                seeds = f", {len(group)} seeds" if len(group) > 1 else ", one seed"
                what = f"{RULES[rule]}, {title(group[0]).partition(', ')[2]}"
                where = f"{title(group[0]).partition(',')[0]}, {group[0]['samples']} test samples"
                rows.append([what, where, f"accuracy {shown('accuracy', group)} %{seeds}"])
    return rows
