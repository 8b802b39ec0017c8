"""The texts of notices: Jinja templates, one file per notice and language, all checked when they are loaded.

A template is tried with every value, and without those that may be missing, before it is taken: what a customer is to
read never fails for a slip of the pen. It runs in a sandbox and sees nothing but its values.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import StrictUndefined, Template, TemplateError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from balance.notices import Notice
from occ.notices.formats import KINDS, SAMPLES, Context, Shown, locale_of, shown
from occ.yamlmap import ConfigError, Node, load_yaml, nearest, read_text
from occ.yamlmap import shown as shown_path

DECLARATIONS: Final = "templates.yaml"
OPTIONAL: Final = "optional "
"""Before the kind of a value that may be missing."""
SUBJECT: Final = "Subject:"
ALWAYS: Final = ("operator", "at", "number", "channel")
"""What every template is told."""
LONGEST_TEXT: Final = 4096
"""Characters; what Telegram takes, and more than anybody wants by SMS."""

_BLANKS: Final = re.compile(r"\n{3,}")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_VALUE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


class RenderError(Exception):
    """A notice cannot be put into words; the message says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a customer reads."""

    language: str
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class _Declared:
    values: Mapping[str, tuple[str, bool]]
    """(kind, whether it may be missing) by name."""
    languages: frozenset[str]


class Templates:
    """All texts of one directory."""

    def __init__(
        self,
        default: str,
        declared: Mapping[str, _Declared],
        compiled: Mapping[tuple[str, str], Template],
        names: Mapping[str, Mapping[str, str]],
        languages: tuple[str, ...],
    ) -> None:
        self.default_language = default
        self.languages = languages
        self._declared = declared
        self._compiled = compiled
        self._names = names

    @classmethod
    def load(cls, directory: Path, default_language: str) -> "Templates":
        """Raises ConfigError with file, line and reason."""
        return _Loader(directory, default_language).load()

    @property
    def known(self) -> tuple[str, ...]:
        """The names of all templates."""
        return tuple(self._declared)

    def values(self, template: str) -> Mapping[str, tuple[str, bool]]:
        """What a template is told: (kind, whether it may be missing) by name. Raises KeyError."""
        return self._declared[template].values

    def language_for(self, template: str, wanted: str) -> str:
        """The language that a customer gets a notice in: the wanted one if the notice is written in it, "pt" for
        "pt-BR", else the default one."""
        declared = self._declared[template]
        for language in (wanted, wanted.partition("-")[0]):
            if language in declared.languages:
                return language
        return self.default_language

    def render(self, notice: Notice, language: str, told: Mapping[str, str], time_zone: str) -> Text:
        """A notice in a customer's language; ``told``: ``operator``, ``number`` and ``channel``. Raises RenderError."""
        declared = self._declared.get(notice.template)
        if declared is None:
            raise RenderError(f"there is no template {notice.template}{nearest(notice.template, self._declared)}")
        language = self.language_for(notice.template, language)
        to = Context(language, time_zone, str(notice.values.get("currency", "")), self._names)
        values: dict[str, str | None] = {}
        for name, (kind, optional) in declared.values.items():
            given = notice.values.get(name)
            if given is None and not optional:
                raise RenderError(f"template {notice.template} needs {name}, which the notice does not have")
            try:
                values[name] = None if given is None else shown(kind, given, to)
            except ValueError as error:
                raise RenderError(f"template {notice.template}, value {name}: {error}") from None
        values["at"] = Shown(shown("time", notice.at_ms, to), notice.at_ms)
        try:
            return _text(language, self._compiled[notice.template, language].render({**told, **values}))
        except Exception as error:  # whatever a template does with values that nobody tried
            raise RenderError(f"template {notice.template} in {language} fails: {error}") from None


def _text(language: str, rendered: str) -> Text:
    first, _, rest = rendered.partition("\n")
    subject = " ".join(first.removeprefix(SUBJECT).split())
    body = _BLANKS.sub("\n\n", "\n".join(line.rstrip() for line in rest.strip().splitlines()))
    if len(body) > LONGEST_TEXT:
        raise ValueError(f"its text has {len(body)} characters; {LONGEST_TEXT} at most can be sent")
    return Text(language, subject, _CONTROL.sub("", body))


class _Loader:
    def __init__(self, directory: Path, default: str) -> None:
        self._directory = directory
        self._default = default
        # No trim_blocks: a subject may end with a block, and its line must end there.
        self._environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, lstrip_blocks=True
        )

    def load(self) -> Templates:
        root = load_yaml(self._directory / DECLARATIONS)
        fields = root.mapping(("languages", "templates", "names"), required=["languages", "templates"])
        languages = self._languages(fields["languages"])
        declared: dict[str, _Declared] = {}
        places: dict[str, Node] = {}
        for key, node in fields["templates"].table():
            name = key.text()
            if not _NAME.fullmatch(name):
                raise key.error(f"{name[:80]!r} is no name of a template: a-z, 0-9 and - only")
            declared[name], places[name] = self._template(node, languages), key
        self._check_files(declared, languages)
        names = _names(fields["names"], languages) if "names" in fields else {}
        compiled = {}
        for name, each in declared.items():
            for language in sorted(each.languages):
                compiled[name, language] = self._compile(name, each, language, places[name], names)
        return Templates(self._default, declared, compiled, names, languages)

    def _languages(self, node: Node) -> tuple[str, ...]:
        found: list[str] = []
        for item in node.items():
            try:
                locale_of(item.text())
            except ValueError as error:
                raise item.error(str(error)) from None
            found.append(item.text())
        if self._default not in found:
            raise node.error(f"the default language, notices.language, is {self._default}, which is not among these")
        return tuple(found)

    def _template(self, node: Node, languages: tuple[str, ...]) -> _Declared:
        fields = node.mapping(("values", "only_in"))
        values: dict[str, tuple[str, bool]] = {}
        for key, kind in fields["values"].table() if "values" in fields else ():
            name, written = key.text(), kind.text()
            if not _VALUE.fullmatch(name) or name in (*ALWAYS, "currency"):
                raise key.error(f"{name[:40]!r} cannot be the name of a value")
            word = written.removeprefix(OPTIONAL)
            if word not in KINDS:
                raise kind.error(f"{word[:40]!r} is no kind of value{nearest(word, KINDS)}")
            values[name] = (word, word != written)
        if "only_in" not in fields:
            return _Declared(values, frozenset(languages))
        only = [item.choice(languages) for item in fields["only_in"].items()]
        if self._default not in only:
            raise fields["only_in"].error(f"it must be written in the default language, {self._default}, too")
        return _Declared(values, frozenset(only))

    def _check_files(self, declared: Mapping[str, _Declared], languages: Iterable[str]) -> None:
        """That no text lies there under a name that is never looked for."""
        for language in languages:
            for path in sorted((self._directory / language).glob("*")):
                each = declared.get(path.stem) if path.suffix == ".txt" else None
                if each is None or language not in each.languages:
                    raise ConfigError(
                        shown_path(path), None, f"{DECLARATIONS} names no such notice{nearest(path.stem, declared)}"
                    )

    def _compile(
        self, name: str, declared: _Declared, language: str, place: Node, names: Mapping[str, Mapping[str, str]]
    ) -> Template:
        path = self._directory / language / f"{name}.txt"
        if not path.is_file():
            raise place.error(
                f"there is no {shown_path(path)}: write it, or name the languages it is written in, such as "
                f"only_in: [{self._default}]"
            )
        source = read_text(path)
        where = shown_path(path)
        self._check_subject(source, where)
        try:
            tree = self._environment.parse(source)
            self._check_names(tree, declared, where)
            code = self._environment.compile(source, name, str(path))
        except TemplateError as error:
            raise ConfigError(where, getattr(error, "lineno", None), f"{error.message or error}") from None
        template = Template.from_code(self._environment, code, {})
        for without in (False, True):
            _try(template, declared, language, names, path, without)
        return template

    @staticmethod
    def _check_subject(source: str, where: str) -> None:
        first, _, rest = source.partition("\n")
        if not first.startswith(SUBJECT) or not first.removeprefix(SUBJECT).strip():
            raise ConfigError(where, 1, f"the first line must be the subject, such as '{SUBJECT} Your balance is low'")
        if not rest.strip():
            raise ConfigError(where, 2, "there is no text below the subject")

    def _check_names(self, tree: nodes.Template, declared: _Declared, where: str) -> None:
        known = (*declared.values, *ALWAYS)
        unknown = find_undeclared_variables(tree) - set(known)
        for use in tree.find_all(nodes.Name):
            if use.name in unknown:
                raise ConfigError(
                    where, use.lineno, f"the notice is not told {use.name!r}{nearest(use.name, known)}; add it to "
                    f"{DECLARATIONS}"
                )  # fmt: skip


def _try(
    template: Template,
    declared: _Declared,
    language: str,
    names: Mapping[str, Mapping[str, str]],
    path: Path,
    without: bool,
) -> None:
    """Render it, with or without what may be missing. Raises ConfigError."""
    to = Context(language, "UTC", "EUR", names)
    values: dict[str, str | None] = dict.fromkeys(ALWAYS, "sample")
    values["at"] = shown("time", SAMPLES["time"], to)
    for name, (kind, optional) in declared.values.items():
        values[name] = None if optional and without else shown(kind, SAMPLES[kind], to)
    missing = " without what may be missing" if without else ""
    try:
        text = _text(language, template.render(values))
    except Exception as error:  # anything that a template can do wrong
        raise ConfigError(shown_path(path), _line(error, path), f"it fails{missing}: {error}") from None
    if not text.body or not text.subject:
        raise ConfigError(shown_path(path), None, f"subject or text is empty{missing}")
    unsaid = [name for name, value in values.items() if value is None]
    if unsaid and "None" in text.subject + text.body:
        raise ConfigError(shown_path(path), None, f"it says 'None'{missing}: ask first, as in {{% if {unsaid[0]} %}}")


def _line(error: BaseException, path: Path) -> int | None:
    """The line of a template that an error comes from."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == str(path):
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def _names(node: Node, languages: tuple[str, ...]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for key, written in node.table():
        found[key.text()] = {language: value.text() for language, value in written.mapping(languages).items()}
    return found
