"""Checks the objects on standard input against the schemas of Kubernetes and of the Prometheus operator.

Prints them as one JSON array if all are right; otherwise says what is not, on standard error, and exits with 1. A key that a schema
does not know is wrong, too: a server would drop it without a word.
"""

import json
import sys

import kubernetes_validate
import yaml

# The oldest version that still gets fixes, about, and the newest that the schemas are there for.
VERSIONS = ("1.31", "1.37")


def lost(given, kept, path):
    """The paths of what a model has not taken over."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key not in kept:
                yield f"{path}.{key}: not in the schema"
            else:
                yield from lost(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list):
        for index, (one, other) in enumerate(zip(given, kept)):
            yield from lost(one, other, f"{path}[{index}]")


def problems(thing):
    """What is wrong with one object."""
    if thing["apiVersion"] == "monitoring.coreos.com/v1":
        # Two seconds, which are for those only that have such objects.
        from cloudcoil.models.prometheus_operator import v1 as operator

        try:
            model = getattr(operator, thing["kind"]).model_validate(thing)
        except (AttributeError, ValueError) as error:
            return [str(error)]
        return list(lost(thing, model.model_dump(by_alias=True, exclude_none=True, mode="json"), ""))
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            found.append(f"Kubernetes {version}: {error}")
    return found


def main():
    things = [thing for thing in yaml.safe_load_all(sys.stdin) if thing is not None]
    wrong = [
        f"{thing['kind']} {thing['metadata']['name']}: {problem}" for thing in things for problem in problems(thing)
    ]
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong or not things:
        sys.exit("the objects are not right" if wrong else "there are no objects")
    json.dump(things, sys.stdout, default=str)


main()
