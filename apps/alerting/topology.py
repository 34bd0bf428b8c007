"""Services and what they depend on, as a graph of names: who stands behind whom, and no circles. Pure."""

from collections.abc import Collection, Mapping

Graph = Mapping[str, Collection[str]]
"""Service → the services that it depends on itself."""


def behind(graph: Graph, service: str) -> dict[str, int]:
    """Return everything that the service depends on, at how many steps; the nearest first, itself not."""
    found: dict[str, int] = {}
    level, steps = [service], 0
    while level:
        steps += 1
        following = []
        for name in level:
            for parent in sorted(graph.get(name, ())):
                if parent != service and parent not in found:
                    found[parent] = steps
                    following.append(parent)
        level = following
    return found


def turned(graph: Graph) -> dict[str, set[str]]:
    """Return the graph the other way round: service → the services that depend on it themselves."""
    found: dict[str, set[str]] = {}
    for service, parents in graph.items():
        for parent in parents:
            found.setdefault(parent, set()).add(service)
    return found


def circle(graph: Graph) -> list[str]:
    """Return services that depend on each other in a circle, the first one again at the end; empty where none do."""
    done: set[str] = set()
    for start in sorted(graph):
        if start in done:
            continue
        path: list[str] = []
        on_path: set[str] = set()
        # Each entry: a service and those of its parents that have not been looked at. No recursion: graphs are input.
        stack = [(start, iter(sorted(graph.get(start, ()))))]
        path.append(start)
        on_path.add(start)
        while stack:
            name, parents = stack[-1]
            for parent in parents:
                if parent in on_path:
                    return [*path[path.index(parent) :], parent]
                if parent not in done:
                    stack.append((parent, iter(sorted(graph.get(parent, ())))))
                    path.append(parent)
                    on_path.add(parent)
                    break
            else:
                stack.pop()
                path.pop()
                on_path.discard(name)
                done.add(name)
    return []
