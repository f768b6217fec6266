#!/usr/bin/env python3
"""Checks the layers of the tree, and what no tracked file may hold.

    tools/check_layers.py [ROOT]

Prints one line per violation and exits 1 where there is any. Checked are

  - includes and BUILD dependencies: a package uses only what LAYERS grants it;
  - //testing is used by testonly targets alone;
  - each header that a source includes belongs to a direct dependency of every
    target that holds the source;
  - public libraries are named in docs/embedding.md;
  - no tracked text names a folder of somebody's machine, or a host that is not
    in HOSTS.
"""

import ast
import collections
import os
import re
import subprocess
import sys

# Package -> the packages that it may use beside itself.
LAYERS = {
    "tensor": [],
    "kernels": ["tensor"],
    "models": ["kernels", "tensor"],
    "tokenizer": [],
    "runtime": ["models", "kernels", "tensor", "tokenizer"],
    "quantization": ["models", "kernels", "tensor", "tokenizer"],
    "apps": ["runtime", "quantization", "models", "kernels", "tensor",
             "tokenizer"],
    "testing": ["apps", "runtime", "quantization", "models", "kernels",
                "tensor", "tokenizer"],
}

# Hosts that a tracked file may name in an address.
HOSTS = {
    "arxiv.org",
    "github.com",
    "huggingface.co",
    "llvm.org",
    "www.apache.org",
    "www.unicode.org",
}
# Reserved for examples and tests (RFC 2606, RFC 6761).
EXAMPLE_HOST = re.compile(r"(^|\.)(example(\.(com|org|net))?|localhost)$")

EMBEDDING = "docs/embedding.md"
ADDRESS = re.compile(r"\bhttps?://([A-Za-z0-9.-]+)")
MACHINE_PATH = re.compile(r"(?<![\w.$})~-])/(?:work|root|home/\w+)/\w")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
TEST_RULES = {"cc_test", "nibble_fuzz_test"}
SOURCES = (".cc", ".h")
TEXTS = SOURCES + (".bzl", ".bazel", ".BUILD", ".sh", ".py", ".md", ".proto",
                   ".bazelrc", ".txt")

Target = collections.namedtuple(
    "Target", "label package line testonly public sources headers deps")


def tracked_files(root):
    """Paths of the tracked files, relative to root; of all without git."""
    if os.path.exists(os.path.join(root, ".git")):
        names = subprocess.run(
            ["git", "-C", root, "ls-files", "-z"], check=True,
            stdout=subprocess.PIPE).stdout.decode().split("\0")
    else:
        names = [os.path.relpath(os.path.join(folder, name), root)
                 for folder, _, files in os.walk(root) for name in files]
    return sorted(n for n in names
                  if n and not n.startswith("bazel-") and
                  os.path.isfile(os.path.join(root, n)))


def strings_in(node):
    """Every string of an expression: lists, sums and selects alike."""
    if node is None:
        return []
    if isinstance(node, ast.Call):
        # Of a select the values count, and not its conditions.
        found = []
        for argument in node.args:
            if isinstance(argument, ast.Dict):
                for value in argument.values:
                    found += strings_in(value)
            else:
                found += strings_in(argument)
        return found
    return [n.value for n in ast.walk(node)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def rule_name(call):
    return call.func.id if isinstance(call.func, ast.Name) else ""


def absolute_label(label, package):
    if label.startswith(":"):
        return "//%s%s" % (package, label)
    if label.startswith("//") and ":" not in label:
        return "%s:%s" % (label, label.rsplit("/", 1)[-1])
    return label


def parse_targets(path, text):
    """The targets of one BUILD file."""
    package = os.path.dirname(path)
    targets = []
    for node in ast.walk(ast.parse(text, path)):
        if not isinstance(node, ast.Call):
            continue
        values = {k.arg: k.value for k in node.keywords if k.arg}
        name = values.get("name")
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            continue
        testonly = values.get("testonly")
        is_test = rule_name(node) in TEST_RULES or (
            isinstance(testonly, ast.Constant) and bool(testonly.value))

        def files(attribute):
            return [os.path.join(package, f)
                    for f in strings_in(values.get(attribute))
                    if not f.startswith((":", "//", "@"))]

        targets.append(Target(
            label="//%s:%s" % (package, name.value),
            package=package,
            line="%s:%d" % (path, node.lineno),
            testonly=is_test,
            public=(rule_name(node) == "cc_library" and
                    "//visibility:public" in
                    strings_in(values.get("visibility"))),
            sources=files("srcs"),
            headers=files("hdrs") + files("textual_hdrs"),
            deps=[absolute_label(d, package)
                  for d in strings_in(values.get("deps"))]))
    return targets


def layer_of(path):
    """The layer of a path, or of a label without its slashes."""
    layer = re.split("[/:]", path, maxsplit=1)[0]
    return layer if layer in LAYERS else None


def may_use(user, used, testonly):
    """None, or why layer `user` may not use layer `used`."""
    if user is None or used is None or user == used:
        return None
    if used == "testing":
        return None if testonly else "only testonly targets use testing"
    if used in LAYERS[user]:
        return None
    return "%s may use only [%s]" % (user, ", ".join(LAYERS[user]))


def check_dependencies(targets):
    for target in targets:
        for dep in target.deps:
            if not dep.startswith("//"):
                continue
            why = may_use(layer_of(target.package), layer_of(dep[2:]),
                          target.testonly)
            if why:
                yield "%s: %s depends on %s: %s" % (
                    target.line, target.label, dep, why)


def check_includes(targets, includes):
    owners = collections.defaultdict(set)  # header -> labels
    for target in targets:
        for header in target.headers:
            owners[header].add(target.label)
    for target in targets:
        if layer_of(target.package) is None:
            continue
        allowed = set(target.deps) | {target.label}
        own = set(target.sources) | set(target.headers)
        for source in sorted(own):
            for line, header in includes.get(source, []):
                if layer_of(header) is None:
                    continue
                where = "%s:%d: includes %s" % (source, line, header)
                why = may_use(layer_of(source), layer_of(header),
                              target.testonly)
                if why:
                    yield "%s: %s" % (where, why)
                elif header in own or header.endswith(".pb.h"):
                    continue  # Bazel itself requires the cc_proto_library.
                elif header not in owners:
                    yield "%s, which no target exports" % where
                elif not owners[header] & allowed:
                    yield "%s: %s needs the direct dependency %s" % (
                        where, target.label, min(owners[header]))


def check_documented(targets, document):
    """Public libraries stand in docs/embedding.md, which is `document`."""
    for target in targets:
        package, name = target.label.rsplit(":", 1)
        short = package if package.endswith("/" + name) else target.label
        if target.public and "@nibble%s`" % short not in document:
            yield "%s: public, but docs/embedding.md lacks @nibble%s" % (
                target.line, short)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def check_text(path, text):
    for match in MACHINE_PATH.finditer(text):
        yield "%s:%d: names a folder of one machine: %s" % (
            path, line_of(text, match.start()), match.group())
    for match in ADDRESS.finditer(text):
        host = match.group(1).rstrip(".").lower()
        if host not in HOSTS and not EXAMPLE_HOST.search(host):
            yield "%s:%d: %s is not a host that this tree may name" % (
                path, line_of(text, match.start()), host)


def is_text(path):
    name = os.path.basename(path)
    return path.endswith(TEXTS) or "." not in name.lstrip(".")


def check(root):
    """Yields every violation under root."""
    targets, includes, texts = [], {}, {}
    for path in tracked_files(root):
        if not is_text(path):
            continue
        with open(os.path.join(root, path), encoding="utf-8",
                  errors="replace") as file:
            text = texts[path] = file.read()
        if os.path.basename(path) in ("BUILD", "BUILD.bazel"):
            targets += parse_targets(path, text)
        if path.endswith(SOURCES):
            includes[path] = [(line_of(text, m.start(1)), m.group(1))
                              for m in INCLUDE.finditer(text)]
    yield from check_dependencies(targets)
    yield from check_includes(targets, includes)
    if EMBEDDING in texts:
        yield from check_documented(targets, texts[EMBEDDING])
    for path, text in texts.items():
        yield from check_text(path, text)


def main(arguments):
    root = arguments[1] if len(arguments) > 1 else os.path.join(
        os.path.dirname(os.path.realpath(__file__)), os.pardir)
    violations = sorted(set(check(root)))
    for violation in violations:
        print(violation)
    print("check_layers: %s" % ("%d violations" % len(violations)
                                if violations else "clean"))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
