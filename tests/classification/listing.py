"""What a data set lists, sample by sample."""


def ids(dataset) -> list[str]:
    return [dataset[i]["id"] for i in range(len(dataset))]


def labels(dataset) -> list[int]:
    return [int(dataset[i]["label"]) for i in range(len(dataset))]
