/**
 * The rules of the house, checked against the sources: imports form no cycle, only `lib/host.ts` touches the outside
 * world, modules are short and have tests, comments are in plain English and cite pages and rules that exist, and links in
 * the documentation lead somewhere. Functions are short too: .oxlintrc.json says how short.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const ROOT = join(import.meta.dir, "..");

/** A line of a comment, by its first characters. */
const COMMENT_LINE = /^\s*(?:\/\/|\/\*|\*(?:\s|\/|$))/;

const sources = new Map(
  readdirSync(join(ROOT, "lib"))
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"))
    .sort()
    .map((name) => [name, readFileSync(join(ROOT, "lib", name), "utf8")]),
);
const real = new Map([...sources].map(([name, source]) => [name, findImports(source)]));

/** The modules that may read `process` and start processes, and why. */
const OUTSIDERS: Readonly<Record<string, string>> = {
  "host.ts": "it is the outside",
};

/** The modules that may read the clock, and why. */
const CLOCKS: Readonly<Record<string, string>> = {
  "host.ts": "it is the outside",
  "async.ts": "systemClock, for the clients of registries and daemons",
};

describe("findImports()", () => {
  test("sees static, type-only and dynamic imports, but no workers and none in comments", () => {
    const source = `
import { a } from "./a.ts";
import type { B } from "./b.ts";
import {
  type C,
} from "./c.ts";
export { d } from "./d.ts";
const e = await import("./e.ts");
let f: import("./f.ts").F;
new Worker(new URL("./g.worker.ts", import.meta.url));
import(
  "./h.ts"
);
import "node:fs";
// import { x } from "./x.ts";
/**
 * import { y } from "./y.ts";
 */`;
    expect(findImports(source)).toEqual(["a", "b", "c", "d", "e", "f", "h"].map((name) => `${name}.ts`));
  });
});

describe("lib/", () => {
  test.each([...sources.keys()])("%s is in no import cycle", (name) => {
    const seen = new Set<string>();
    const visit = (at: string): void => {
      for (const target of real.get(at) ?? []) {
        if (seen.has(target)) continue;
        seen.add(target);
        visit(target);
      }
    };
    visit(name);
    expect([...seen]).not.toContain(name);
  });

  test.each([...sources].filter(([name]) => OUTSIDERS[name] === undefined))(
    "%s leaves the outside to host.ts",
    (_name, source) => {
      const outside = /\bprocess\.\w|\bBun\.spawn|node:child_process|node:process/;
      expect(codeLines(source).filter((line) => outside.test(line))).toEqual([]);
    },
  );

  test.each([...sources].filter(([name]) => CLOCKS[name] === undefined))(
    "%s does not read the clock",
    (_name, source) => {
      const clock = /\bDate\.now\b|\bperformance\.\w|\bnew Date\(\)|\bBun\.nanoseconds\b/;
      expect(codeLines(source).filter((line) => clock.test(line))).toEqual([]);
    },
  );
});

describe("docs/architecture.md", () => {
  const subjects = readSubjects(readFileSync(join(ROOT, "docs", "architecture.md"), "utf8"));
  const modules = [...sources.keys()].filter((name) => !name.endsWith(".worker.ts"));

  test("lists the subject of every module, and no subject without a module", () => {
    expect(modules.filter((name) => subjectOf(name, subjects) === undefined)).toEqual([]);
    const used = new Set(modules.map((name) => subjectOf(name, subjects)));
    expect([...subjects.keys()].filter((subject) => !used.has(subject))).toEqual([]);
  });

  test("puts every module into the layer of its imports or above", () => {
    const layerOf = (name: string): number => subjects.get(subjectOf(name, subjects) ?? "") ?? 0;
    const wrong = modules.flatMap((name) =>
      (real.get(name) ?? [])
        .filter((target) => layerOf(target) > layerOf(name))
        .map((target) => `${name} (layer ${layerOf(name)}) imports ${target} (layer ${layerOf(target)})`),
    );
    expect(wrong).toEqual([]);
  });
});

/** The layer of each subject, from rows such as ``| 2 | `oci`, `image` | … |``. */
function readSubjects(page: string): Map<string, number> {
  const subjects = new Map<string, number>();
  for (const [, layer, names = ""] of page.matchAll(/^\| *(\d+) *\|([^|]*)\|/gm)) {
    for (const [, name = ""] of names.matchAll(/`([\w-]+)`/g)) {
      if (subjects.has(name)) throw new Error(`docs/architecture.md lists ${name} twice`);
      subjects.set(name, Number(layer));
    }
  }
  return subjects;
}

/** The longest subject that a module's name begins with. `cli-` is about the parts of `cli`, not about `cli` itself. */
function subjectOf(file: string, subjects: ReadonlyMap<string, number>): string | undefined {
  const name = file.replace(/\.ts$/, "");
  const fits = (subject: string): boolean =>
    name === subject || name.startsWith(subject.endsWith("-") ? subject : `${subject}-`);
  return [...subjects.keys()].filter(fits).sort((a, b) => b.length - a.length)[0];
}

describe("modules", () => {
  test.each([...sources])("%s has at most 450 lines", (_name, source) => {
    expect(source.trimEnd().split("\n").length).toBeLessThanOrEqual(450);
  });
});

/** Modules without a test file of their own, and where they are tested. */
const UNTESTED: Readonly<Record<string, string>> = {
  "base-mirrors": "feature-registries.test.ts reads bases from mirrors",
  "bases-pull": "feature-bases.test.ts pulls bases, and builds without a network",
  bases: "feature-bases.test.ts runs the command on a registry",
  "build-confirmation": "build-cache.test.ts and feature-incremental-race.test.ts record builds",
  "build-image": "build.test.ts makes images and indexes with it",
  "build-kodata": "feature-reuse.test.ts and feature-parity.test.ts build programs with kodata",
  "build-record": "build-cache.test.ts reads and writes records; feature-incremental.test.ts plans their inputs again",
  "build-reuse": "feature-reuse.test.ts makes commits and tags",
  changes: "feature-changed-since.test.ts changes each kind of input",
  "check-config": "feature-check.test.ts has a table of wrong settings",
  "check-programs": "feature-check.test.ts has a table of wrong programs",
  "check-yaml": "feature-check.test.ts has a table of wrong YAML",
  check: "feature-check.test.ts runs the command",
  "cli-building": "cli.test.ts checks the flags of commands",
  "cli-choice": "feature-changed-since.test.ts runs ko build with its flags",
  "cli-environment": "a table: cli-help.test.ts compares it with the sources",
  "cli-flag-bases": "cli-commands.test.ts parses all flags",
  "cli-flag-choice": "cli-commands.test.ts parses all flags",
  "cli-flag-groups": "a table: cli-commands.test.ts parses its flags, and compares docs/reference.md with it",
  "cli-flag-images": "cli-commands.test.ts parses all flags",
  "cli-flag-publish": "cli-commands.test.ts parses all flags",
  "cli-flag-rollout": "cli-commands.test.ts parses all flags",
  "cli-once": "cli.test.ts and the feature tests run commands",
  "cli-parse": "cli-commands.test.ts parses command lines with the tables of cli-commands.ts",
  "cli-report": "feature-events.test.ts runs commands with it",
  "cli-watch": "watch.test.ts and feature-watch-apply.test.ts run watches",
  "compress.worker": "compress.test.ts starts it",
  "config-cache": "settings-schema.test.ts has good and bad values",
  "config-file": "config.test.ts reads files through config.ts",
  "config-move": "config.test.ts reads files of a folder further up",
  "config-places": "config.test.ts and settings-schema.test.ts have good and bad values",
  "config-profiles": "config.test.ts chooses profiles",
  "doctor-check": "feature-doctor.test.ts runs checks that fail, and that hang",
  "doctor-daemon": "feature-doctor.test.ts",
  "doctor-machine": "feature-doctor.test.ts",
  "doctor-registry": "feature-doctor.test.ts",
  "doctor-tools": "feature-doctor.test.ts",
  doctor: "feature-doctor.test.ts runs it on sound and broken machines",
  "events-lines": "feature-events.test.ts compares the lines of whole runs with their events",
  "events-record": "feature-events.test.ts reads the files of whole runs",
  events: "types",
  "follow-printer": "follow-container.test.ts and feature-logs.test.ts print with it",
  follow: "feature-logs.test.ts runs a watch with it",
  "git-changes": "feature-changed-since.test.ts reads real repositories, shallow ones and submodules too",
  "go-programs-all": "feature-changed-since.test.ts builds all programs",
  "go-sources-plan": "go-sources.test.ts makes plans",
  "image-derive": "rebase.test.ts compares what it derives with a build",
  "layer-read": "base-loaders.test.ts lists layers, and rebase.test.ts reads programs",
  "pipeline-nodes": "feature-platform-cluster.test.ts builds for 27 mixes of nodes and Pods",
  "pipeline-plans": "feature-local-base.test.ts and build-debug.test.ts run whole builds that it refuses or adapts",
  "pipeline-platforms": "feature-platform-cluster.test.ts chooses by flags, configuration and cluster",
  "pipeline-resources": "publish.test.ts opens publishers with it, pipeline.test.ts whole runs",
  "progress-area": "progress-terminal.test.ts and watch-screen.test.ts draw on a terminal",
  "publish-also": "feature-also-push.test.ts pushes to several registries",
  "rebase-programs": "rebase.test.ts makes SBOMs of the programs that it takes out",
  "registry-credential": "types, and the one header that registry-auth.test.ts reads",
  "registry-keychain-aws-identity": "registry-keychain-aws.test.ts asks its sources, with fakes of the services",
  "registry-keychain-aws-profile": "registry-keychain-aws.test.ts reads profiles",
  "registry-keychain-file": "registry-keychain.test.ts reads Docker's and podman's files",
  "registry-keychain-google-external": "registry-keychain-google.test.ts exchanges tokens, with fakes of the services",
  "registry-keychain-google-token": "registry-keychain-google.test.ts signs and exchanges tokens",
  "registry-keychain-helper": "registry-keychain.test.ts runs helpers",
  "registry-token": "registry-auth.test.ts fetches tokens",
  "rollout-api": "feature-rollout.test.ts asks a real API server with it",
  "rollout-apply": "feature-rollout.test.ts runs the commands",
  "rollout-explain": "feature-rollout.test.ts compares the errors",
  "rollout-log": "feature-rollout.test.ts shows logs and panics",
  "rollout-objects": "rollout-state.test.ts finds objects with it",
  "rollout-pods": "feature-rollout.test.ts has a table of causes",
  "rollout-proxy": "feature-rollout.test.ts runs a watch with it",
  "rollout-revision": "feature-rollout.test.ts finds Pods with it",
  "rollout-run": "feature-run.test.ts runs a Pod that cannot start",
  "rollout-swap-plan": "feature-swap.test.ts has a table of documents",
  "rollout-swap-record": "feature-swap.test.ts kills a watch",
  "rollout-swap-undo": "feature-swap.test.ts applies after a killed watch",
  "rollout-swap": "feature-swap.test.ts replaces images with it",
  "rollout-swapper": "feature-swap.test.ts runs a watch with it",
  "rollout-watch": "feature-rollout.test.ts runs a watch with it",
  rollout: "feature-rollout.test.ts waits with it",
  "size-symbols": "size.test.ts compares it with go tool nm",
  "template-data": "template.test.ts compares what templates read with Go",
  "template-format": "template.test.ts compares printf and print with Go",
  "template-lex": "template.test.ts compares what is parsed with Go",
  "timing-page-style": "feature-timing-page.test.ts looks at colours and places in a browser",
  "yaml-exact": "feature-endless.test.ts gives large documents to its worker",
  "yaml-objects-cut": "yaml-objects.test.ts cuts lists",
  "yaml-scan-text": "yaml-scan.test.ts reads the same documents",
  "yaml.worker": "feature-endless.test.ts starts it",
};

/** Helpers of the tests; a new one joins the module of its subject. */
const MAX_HELPERS = 25;

describe("test/", () => {
  const names = readdirSync(join(ROOT, "test"))
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => name.replace(/\.test\.ts$/, ""));

  test("has files named <module>.test.ts, <module>.<part>.test.ts and feature-<name>.test.ts", () => {
    const subjects = names.filter((name) => !name.startsWith("feature-")).map((name) => name.replace(/\..*$/, ""));
    expect(subjects.filter((subject) => !sources.has(`${subject}.ts`))).toEqual([]);
  });

  test("has a file for each module of lib/, but for those with a reason", () => {
    const modules = [...sources.keys()].map((name) => name.replace(/\.ts$/, ""));
    expect(modules.filter((name) => !names.includes(name))).toEqual(Object.keys(UNTESTED));
  });

  test(`has at most ${MAX_HELPERS} helpers, of at most 450 lines`, () => {
    const helpers = readdirSync(join(ROOT, "test", "helpers"));
    expect(helpers.length).toBeLessThanOrEqual(MAX_HELPERS);
    const lines = (name: string): number =>
      readFileSync(join(ROOT, "test", "helpers", name), "utf8").split("\n").length;
    expect(helpers.filter((name) => lines(name) > 451)).toEqual([]);
  });
});

/** A sentence that only names a page or a module. */
const POINTER = /^[A-Z][^.:]{0,30}: (?:https?:|[\w/-]+\.(?:ts|md)\b)/;

describe("headSentences()", () => {
  test.each<[string, readonly string[]]>([
    [
      "/**\n * Reads `a.ts`.\n *\n * Go 1.26.8 writes it. It is\n * short.\n */",
      ["Reads `a.ts`.", "Go 1.26.8 writes it.", "It is short."],
    ],
    [
      "/** Reads it: slowly. Rules: docs/rules.md A4, E2. Writing: b.ts. Proxies: https://go.dev */",
      ["Reads it: slowly."],
    ],
    ["/** Reads it. https://go.dev */", ["Reads it. https://go.dev"]],
    ["const a = 1;\n/** Not a head. */", []],
  ])("%j", (source, expected) => {
    expect([...headSentences(source)]).toEqual([...expected]);
  });
});

describe("plain English", () => {
  test('has the word "what" in at most 3 of 100 lines of comments', () => {
    const lines = [...sources.values()].flatMap(commentLines);
    const withWhat = lines.filter((line) => /\bwhat\b/i.test(line));
    expect((100 * withWhat.length) / lines.length).toBeLessThanOrEqual(3);
  });

  test.each([...sources])("%s names the actor", (_name, source) => {
    expect(commentLines(source).filter((line) => /\b(?:whoever|somebody|nobody)\b/i.test(line))).toEqual([]);
  });

  test.each([...sources])("%s begins with a comment of at most three sentences", (_name, source) => {
    const sentences = headSentences(source);
    expect(sentences.length).toBeGreaterThan(0);
    expect(sentences.slice(3)).toEqual([]);
  });
});

function commentLines(source: string): readonly string[] {
  return source.split("\n").filter((line) => COMMENT_LINE.test(line));
}

/**
 * The sentences of the comment at the start of a module. A pointer (`Rules: docs/rules.md A4.`) does not count; a URL
 * between two sentences counts as a part of the first.
 */
function headSentences(source: string): readonly string[] {
  const [, comment = ""] = /^\/\*\*([^]*?)\*\//.exec(source) ?? [];
  const text = comment
    .replace(/^\s*\*/gm, "")
    .replace(/\s+/g, " ")
    .trim();
  const sentences = text.split(/(?<=[.!?]) (?=[A-Z`"(])/);
  return sentences.filter((sentence) => sentence !== "" && !POINTER.test(sentence));
}

/** Every TypeScript file with comments of ours, by its path in the repository. */
const commented: readonly string[] = [
  "ko.ts",
  ...["lib", ".ci", "test"].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && !name.includes("fixtures"))
      .map((name) => `${folder}/${name}`)
      .sort(),
  ),
];

/** Files that comments name without meaning one of this repository: pages of the image spec, examples. */
const EXAMPLES: ReadonlySet<string> = new Set(["descriptor.md", "manifest.md", "image-index.md", "./x.ts", "./y.ts"]);

const rules = findAnchors(readFileSync(join(ROOT, "docs", "rules.md"), "utf8"));

describe("findCitations()", () => {
  test.each<[string, readonly string[]]>([
    ["(docs/rules.md A3.1)", ["A3.1"]],
    ["Rules: docs/rules.md A4, A5, A7.5.", ["A4", "A5", "A7.5"]],
    ["Rules: docs/rules.md A2.2-A2.4 and B1.", ["A2.2", "A2.3", "A2.4", "B1"]],
    ["(docs/rules.md, Bun 4, A11 and E1)", ["Bun 4", "A11", "E1"]],
    ["As A4.8 says, since Bun 1.4.5 and Go 1.26.", ["A4.8"]],
    ["One per host (E1). See docs/rules.md.", []],
  ])("%s", (comment, expected) => {
    expect(findCitations(comment)).toEqual([...expected]);
  });
});

describe("comments", () => {
  test.each(commented)("of %s name files and rules that exist", (file) => {
    const comment = commentsOf(readFileSync(join(ROOT, file), "utf8"));
    const files = findFileNames(comment).filter((name) => !EXAMPLES.has(name) && !isInRepository(name, file));
    const numbers = findCitations(comment).filter((number) => !rules.has(number));
    expect({ files, numbers }).toEqual({ files: [], numbers: [] });
  });
});

/** The text of all comments, without the marks of comments and without URLs. */
function commentsOf(source: string): string {
  const comments = source.split("\n").flatMap((line) => {
    const [, own] = /^\s*(?:\/\/|\/?\*+(?=\s|\/|$)\/?)\s?(.*)$/.exec(line) ?? [];
    const [, trailing] = /[;,{})] \/\/ (.*)$/.exec(line) ?? [];
    return own ?? trailing ?? [];
  });
  return comments.join(" ").replace(/https?:\/\/\S+/g, "");
}

function findFileNames(comment: string): readonly string[] {
  return Array.from(comment.matchAll(/(?<![\w/.*<>-])[\w.-]+(?:\/[\w.-]+)*\.(?:md|ts)\b/g), ([name]) => name);
}

/** A page is named by its path; for a module its name will do. */
function isInRepository(name: string, citedBy: string): boolean {
  if (existsSync(join(ROOT, name))) return true;
  if (!name.endsWith(".ts")) return false;
  return [dirname(citedBy), "lib", "test", "test/helpers"].some((folder) => existsSync(join(ROOT, folder, name)));
}

/** The rules that a comment cites, in order, ranges spelled out: `A3.1`, `A4`, `Bun 4`. */
function findCitations(comment: string): string[] {
  const number = String.raw`(?:[A-E]\d+(?:\.\d+)?|(?:Bun|Go|YAML) \d+(?!\.?\d))`;
  const pages = new RegExp(String.raw`docs/rules\.md,? (${number}(?:(?:, (?:and )?| and |-)${number})*)`, "g");
  const loose = /\b[A-E]\d+\.\d+(?:-[A-E]\d+\.\d+)?\b/g;
  const lists = [...comment.matchAll(pages)].map(([, list = ""]) => list);
  const rest = comment.replaceAll(pages, "").match(loose) ?? [];
  return [...lists, ...rest].flatMap((list) => list.split(/, (?:and )?| and /)).flatMap(spellOut);
}

function spellOut(range: string): readonly string[] {
  const [, section, first, last] = /^([A-E]\d+)\.(\d+)-\1\.(\d+)$/.exec(range) ?? [];
  if (first === undefined) return [range];
  const count = Number(last) - Number(first) + 1;
  return Array.from({ length: count }, (_, i) => `${section}.${Number(first) + i}`);
}

/** The numbers of docs/rules.md: the first word of a heading or of a list item in bold. */
function findAnchors(page: string): ReadonlySet<string> {
  const found = page.matchAll(/^(?:#+ ((?:Bun|Go|YAML) \d+|[A-E]\d+)\b|- \*\*([A-E]\d+(?:\.\d+)?)\*\* )/gm);
  return new Set(Array.from(found, ([, heading, item]) => heading ?? item ?? ""));
}

/** README.md, CHANGELOG.md, the pages of docs/ and of the examples. */
const pages: ReadonlyMap<string, string> = new Map(
  [
    "README.md",
    "CHANGELOG.md",
    ...readdirSync(join(ROOT, "docs")).map((name) => `docs/${name}`),
    ...readdirSync(join(ROOT, "examples")).map((name) => `examples/${name}/README.md`),
  ]
    .filter((name) => name.endsWith(".md") && existsSync(join(ROOT, name)))
    .map((name) => [name, readFileSync(join(ROOT, name), "utf8")]),
);

/** Pages whose lines may be longer: one is generated, the other is being rewritten. */
const WIDE: ReadonlySet<string> = new Set(["docs/reference.md"]);

describe("headingAnchors()", () => {
  test("names headings as GitHub does", () => {
    const page = "# Cache & CI\n\n```sh\n# no heading\n```\n\n## The `-L` daemon\n\n## A.b c\n\n## A.b c\n";
    expect([...headingAnchors(page)]).toEqual(["cache--ci", "the--l-daemon", "ab-c", "ab-c-1"]);
  });
});

describe("documentation", () => {
  test.each([...pages.keys()])("links of %s lead to files and headings that exist", (page) => {
    const broken = relativeLinks(pages.get(page) ?? "").filter((link) => {
      const [file = "", anchor] = link.split("#");
      const target = file === "" ? page : join(dirname(page), file);
      if (anchor === undefined) return !existsSync(join(ROOT, target));
      return !headingAnchors(pages.get(target) ?? "").has(anchor);
    });
    expect(broken).toEqual([]);
  });

  test.each([...pages.keys()].filter((page) => !WIDE.has(page)))("prose of %s has at most 100 columns", (page) => {
    const wide = proseLines(pages.get(page) ?? "").filter((line) => Bun.stringWidth(line) > 100);
    // Tables and the definitions of links cannot be broken.
    expect(wide.filter((line) => !/^\s*\||^\[[^\]]+\]: /.test(line))).toEqual([]);
  });

  test("README.md has at most 120 lines", () => {
    expect((pages.get("README.md") ?? "").trimEnd().split("\n").length).toBeLessThanOrEqual(120);
  });
});

/** The lines outside of code blocks. */
function proseLines(page: string): readonly string[] {
  let isCode = false;
  return page.split("\n").filter((line) => {
    const isFence = /^\s*```/.test(line);
    if (isFence) isCode = !isCode;
    return !isCode && !isFence;
  });
}

function relativeLinks(page: string): readonly string[] {
  const prose = proseLines(page)
    .join("\n")
    .replace(/`[^`\n]*`/g, "");
  const found = prose.matchAll(/\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$/gm);
  return Array.from(found, ([, inline, defined]) => inline ?? defined ?? "").filter((link) => !/^https?:/.test(link));
}

/** The anchors that GitHub makes of headings. */
function headingAnchors(page: string): ReadonlySet<string> {
  const anchors = new Set<string>();
  for (const line of proseLines(page)) {
    const [, title] = /^#+ (.*)$/.exec(line) ?? [];
    if (title === undefined) continue;
    const anchor = title
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_ -]/gu, "")
      .replaceAll(" ", "-");
    let unique = anchor;
    for (let i = 1; anchors.has(unique); i++) unique = `${anchor}-${i}`;
    anchors.add(unique);
  }
  return anchors;
}

/** The modules of lib/ that a source imports, each once, sorted. A worker is started by path: that is no import. */
function findImports(source: string): string[] {
  const found = new Set<string>();
  const code = codeLines(source).join("\n");
  for (const [, name] of code.matchAll(/\b(?:from|import)\s*\(?\s*["']\.\/([\w.-]+\.ts)["']/g)) {
    if (name !== undefined) found.add(name);
  }
  return [...found].sort();
}

/** The lines outside of comments. */
function codeLines(source: string): string[] {
  return source.split("\n").filter((line) => !COMMENT_LINE.test(line));
}
