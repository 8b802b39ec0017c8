"""YAML configuration read with line numbers: a mistake is reported as file, line, reason, nearest key.

A file is composed into YAML's node tree, which remembers where each value stands, and read through `Node`:

    root = load_yaml(Path("config/catalogue.yaml"))
    for service in root.mapping(["services"])["services"].items():
        known = service.mapping(["name", "price", "unit"], required=["name"])
        name = known["name"].text()

or straight into a frozen dataclass whose fields name their reader:

    @dataclass(frozen=True)
    class Listener:
        host: str = setting(text(), "127.0.0.1")
        port: int = setting(integer(0, 65535), 3868)

    listener = build(root, Listener)

Scalars are read from their text, never through YAML's own guesses: `no` is the text "no", `0491` keeps its
zero, `1e3` is not a number.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import yaml

T = TypeVar("T")
Reader = Callable[["Node"], T]

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*(?:_[0-9]+)*)(?:\.[0-9]+)?")
_NUMBER_LENGTH: Final = 40
_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})
_TAG: Final = "tag:yaml.org,2002:"
_CORE_TAGS: Final = frozenset(
    _TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge", "value")
)
_HOW: Final = "occ.yamlmap"


class ConfigError(Exception):
    """A mistake in a configuration; `str()` is one sentence that starts with where it is.

    `source` is the file as the user knows it (or the environment variable, or the option); `line` counts from
    1 and is None where there are no lines.
    """

    def __init__(self, source: str, line: int | None, message: str) -> None:
        super().__init__(f"{source}:{line}: {message}" if line is not None else f"{source}: {message}")
        self.source = source
        self.line = line
        self.message = message


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'port'?` for a near miss, else `; known: host, port`."""
    names = sorted(known)
    return _did_you_mean(word, names) or (f"; known: {', '.join(names)}" if names else "")


def _did_you_mean(word: str, names: Iterable[str]) -> str:
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


class Node:
    """One value of a configuration, with its place.

    `path` is the dotted name for messages ("diameter.port", "diameter.peers.allowed[0]"), `source` and `line`
    are those of `ConfigError`. Every reading method raises `ConfigError` naming the line and what is allowed.
    """

    __slots__ = ("_node", "base", "files", "line", "path", "source")

    def __init__(
        self,
        node: yaml.Node,
        source: str,
        path: str,
        line: int | None,
        base: Path,
        files: list[Path] | None = None,
    ) -> None:
        self._node = node
        self.source = source
        self.path = path
        self.line = line
        self.base = base
        """Directory that relative paths in this value start from."""
        self.files = [] if files is None else files
        """What ``file_path`` has returned so far, to all values of this configuration."""

    @classmethod
    def scalar(cls, value: str, source: str, path: str, base: Path) -> "Node":
        """A value that did not come from a file: an environment variable, an option."""
        return cls(yaml.ScalarNode(_TAG + "str", value), source, path, None, base)

    def error(self, message: str) -> ConfigError:
        """A `ConfigError` at this value's line, to be raised; for checks that only the caller can make."""
        return ConfigError(self.source, self.line, message)

    @property
    def is_null(self) -> bool:
        """Nothing, `~` or `null` stands here."""
        return isinstance(self._node, yaml.ScalarNode) and self._node.tag == _TAG + "null"

    def mapping(self, known: Collection[str], required: Collection[str] = ()) -> "dict[str, Node]":
        """The values of a mapping whose keys are all among `known`; those of `required` are there."""
        values: dict[str, Node] = {}
        for key, value in self.table():
            name = key.text()
            if name not in known:
                raise key.error(f"unknown key {name[:80]!r}{self._within()}{nearest(name, known)}")
            values[name] = value
        for name in required:
            if name not in values:
                raise self.error(f"key {name!r} is missing{self._within()}")
        return values

    def table(self) -> "list[tuple[Node, Node]]":
        """Keys and values, in the file's order, of a mapping whose keys are free; none where null stands."""
        if self.is_null:
            return []
        if not isinstance(self._node, yaml.MappingNode):
            raise self._mismatch("a mapping (key: value)")
        pairs: list[tuple[Node, Node]] = []
        lines: dict[str, int | None] = {}
        for key_node, value_node in self._node.value:
            key = self._child(key_node, f"a key{self._within()}")
            name = key.text()
            if name in lines:
                raise key.error(f"key {name[:80]!r} stands twice{self._within()}, first on line {lines[name]}")
            lines[name] = key.line
            pairs.append((key, self._child(value_node, f"{self.path}.{name}" if self.path else name)))
        return pairs

    def items(self) -> "list[Node]":
        """The values of a list; empty where null."""
        if self.is_null:
            return []
        if not isinstance(self._node, yaml.SequenceNode):
            raise self._mismatch("a list")
        return [self._child(item, f"{self.path}[{index}]") for index, item in enumerate(self._node.value)]

    def text(self) -> str:
        """A scalar as it is written; never empty."""
        if not isinstance(self._node, yaml.ScalarNode):
            raise self._mismatch("a single value")
        if self.is_null or not self._node.value.strip():
            raise self.error(f"{self._name()} must not be empty")
        return cast(str, self._node.value)

    def integer(self, minimum: int | None = None, maximum: int | None = None) -> int:
        """A whole number, `1_000` allowed, within [minimum, maximum]."""
        written = self.text()
        if len(written) > _NUMBER_LENGTH or not _INTEGER.fullmatch(written):
            raise self._mismatch(f"a whole number{_range(minimum, maximum)}")
        value = int(written)
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            raise self._mismatch(f"a whole number{_range(minimum, maximum)}")
        return value

    def decimal(self, minimum: Decimal | int | None = None, maximum: Decimal | int | None = None) -> Decimal:
        """An exact decimal number without exponent, `0.01` or `1_000.50`, within [minimum, maximum]."""
        written = self.text()
        if len(written) > _NUMBER_LENGTH or not _DECIMAL.fullmatch(written):
            raise self._mismatch(f"a decimal number{_range(minimum, maximum)}")
        value = Decimal(written)
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            raise self._mismatch(f"a decimal number{_range(minimum, maximum)}")
        return value

    def boolean(self) -> bool:
        """`true` or `false` (`yes`, `no`, `on`, `off` too)."""
        written = self.text().lower()
        if written in _TRUE:
            return True
        if written in _FALSE:
            return False
        raise self._mismatch("true or false")

    def choice(self, allowed: Collection[str]) -> str:
        """One of the words of `allowed`."""
        written = self.text()
        if written not in allowed:
            hint = _did_you_mean(written, allowed)
            raise self.error(f"{self._name()} must be one of {', '.join(allowed)}, not {written[:80]!r}{hint}")
        return written

    def file_path(self) -> Path:
        """An absolute path; a relative one starts at `base` (the directory of the file it is written in)."""
        written = self.text()
        if "\0" in written:
            raise self._mismatch("a path")
        path = (self.base / Path(written).expanduser()).resolve()
        self.files.append(path)
        return path

    def missing(self, name: str) -> "Node":
        """A null where this mapping has no key `name`."""
        path = f"{self.path}.{name}" if self.path else name
        return Node(yaml.ScalarNode(_TAG + "null", ""), self.source, path, self.line, self.base, self.files)

    def _child(self, node: yaml.Node, path: str) -> "Node":
        child = Node(node, self.source, path, node.start_mark.line + 1, self.base, self.files)
        if node.tag not in _CORE_TAGS:
            raise child.error(f"the tag {node.tag[:80]!r} is not allowed here")
        return child

    def _name(self) -> str:
        return self.path or "the file"

    def _within(self) -> str:
        return f" in {self.path}" if self.path else ""

    def _mismatch(self, wanted: str) -> ConfigError:
        if isinstance(self._node, yaml.ScalarNode):
            found = "nothing" if self.is_null else repr(_shortened(self._node.value))
        else:
            found = "a mapping" if isinstance(self._node, yaml.MappingNode) else "a list"
        return self.error(f"{self._name()} must be {wanted}, not {found}")


def load_yaml(path: Path) -> Node:
    """The root of a YAML file; an empty file is null. Raises `ConfigError` for what is no readable YAML."""
    return _compose(read_text(path), shown(path), path.resolve().parent)


def read_text(path: Path) -> str:
    """A file that must be UTF-8. Raises `ConfigError`."""
    source = shown(path)
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(source, None, f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(source, line, "is not UTF-8 text") from None


def parse_yaml(content: str, source: str, base: Path) -> Node:
    """`load_yaml` for text that is already there."""
    return _compose(content, source, base)


def _compose(content: str, source: str, base: Path) -> Node:
    try:
        # Not the loader in C: nesting without end overruns its stack and takes the process down.
        node = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(source, mark.line + 1 if mark else None, f"is not valid YAML: {reason[:200]}") from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise ConfigError(source, None, f"is not valid YAML: {reason}") from None
    if node is None:
        return Node(yaml.ScalarNode(_TAG + "null", ""), source, "", 1, base)
    return Node(node, source, "", node.start_mark.line + 1, base)


def scalar_node(written: str, line: int) -> yaml.Node:
    """What a line of a file that is no YAML says, to be read through a `Node`."""
    mark = yaml.Mark("", 0, line - 1, 0, None, 0)
    return yaml.ScalarNode(_TAG + "str", written, mark, mark)


def mapping_node(pairs: list[tuple[yaml.Node, yaml.Node]], line: int) -> yaml.Node:
    """The same for several: keys and values, each of `scalar_node` or this."""
    mark = yaml.Mark("", 0, line - 1, 0, None, 0)
    return yaml.MappingNode(_TAG + "map", pairs, mark, mark)


def shown(path: Path) -> str:
    """A path as the user knows it: relative when it lies below the current directory."""
    try:
        text = str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        text = str(path)
    return text.encode("utf-8", "backslashreplace").decode()  # names of files need not be text


def _shortened(value: str) -> str:
    return value if len(value) <= _NUMBER_LENGTH else value[:_NUMBER_LENGTH] + "…"


def _range(minimum: object, maximum: object) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    if minimum is not None:
        return f" of at least {minimum}"
    return f" of at most {maximum}" if maximum is not None else ""


# Readers and dataclasses.


@dataclass(frozen=True, slots=True)
class _Leaf:
    read: Reader[Any]


@dataclass(frozen=True, slots=True)
class _Section:
    cls: type[Any]


def setting(read: Reader[T], default: T) -> T:
    """A dataclass field that is read from its node by `read` and has a default."""
    return field(default=default, metadata={_HOW: _Leaf(read)})


def required(read: Reader[T]) -> T:
    """A dataclass field that is read from its node by `read` and must be there."""
    return cast(T, field(metadata={_HOW: _Leaf(read)}))


def section(cls: type[T]) -> T:
    """A dataclass field that is itself such a dataclass; all of it may be left out."""
    return field(default_factory=cls, metadata={_HOW: _Section(cls)})


def text() -> Reader[str]:
    """Reads any text that is not empty."""
    return Node.text


def integer(minimum: int | None = None, maximum: int | None = None) -> Reader[int]:
    """Reads a whole number."""
    return lambda node: node.integer(minimum, maximum)


def choice(*allowed: str) -> Reader[str]:
    """Reads one of the words."""
    return lambda node: node.choice(allowed)


def optional(read: Reader[T]) -> Reader[T | None]:
    """Reads what `read` reads, or None where null stands."""
    return lambda node: None if node.is_null else read(node)


def list_of(read: Reader[T]) -> Reader[tuple[T, ...]]:
    """Reads a list, each item by `read`."""
    return lambda node: tuple(read(item) for item in node.items())


def build(node: Node, cls: type[T], overrides: Mapping[str, Node] | None = None) -> T:
    """The dataclass `cls` from a mapping; fields left out keep their defaults.

    `overrides` replaces values by dotted path (one of `leaf_paths(cls)`). A `ValueError` raised by the
    dataclass itself (in `__post_init__`, for rules between its fields) is reported at the line of the
    mapping, or as a mistake of the override that brought it about.
    """
    given = dict(overrides or {})
    how = _how(cls)
    mandatory = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    nodes = node.mapping(tuple(how), required=[name for name in mandatory if name not in given])
    values: dict[str, Any] = {}
    for name, reading in how.items():
        if isinstance(reading, _Section):
            prefix = f"{name}."
            inner = {path.removeprefix(prefix): given[path] for path in given if path.startswith(prefix)}
            if name in nodes or inner:
                values[name] = build(nodes.get(name) or node.missing(name), reading.cls, inner)
        elif name in given:
            values[name] = reading.read(given[name])
        elif name in nodes:
            values[name] = reading.read(nodes[name])
    try:
        return cls(**values)
    except ValueError as error:
        blamed = next((value for path, value in given.items() if "." not in path), node)
        raise blamed.error(str(error)) from None


def leaf_paths(cls: type[Any]) -> list[str]:
    """The dotted path of every value of a dataclass made for `build`, sections taken apart."""
    paths: list[str] = []
    for name, reading in _how(cls).items():
        if isinstance(reading, _Section):
            paths.extend(f"{name}.{path}" for path in leaf_paths(reading.cls))
        else:
            paths.append(name)
    return paths


def _how(cls: type[Any]) -> dict[str, _Leaf | _Section]:
    return {f.name: f.metadata[_HOW] for f in fields(cls)}
