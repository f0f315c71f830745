/**
 * YAML that `ko resolve` is given, ours and the original: which strings are references, and what they become.
 *
 * The programs are those of {@link PROGRAMS}. Where ours parts from the original on purpose, the case says what ours gives.
 */
import { goMod, mainGo } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";

export interface YamlCase {
  /** In plain words; the test's name. */
  readonly name: string;
  /** Paths below the case's own folder, where both run. */
  readonly files?: Files;
  /** What follows `ko resolve`. @default {["-f", "in.yaml"]} */
  readonly args?: readonly string[];
  readonly stdin?: string;
  /**
   * Where ours differs on purpose: why, and the documents that ours gives, an image being written `NAME@DIGEST` (the MD5
   * and the digest left out). The original must give something else, or fail.
   */
  readonly ours?: { readonly why: string; readonly documents: readonly unknown[] };
}

/** The module that the cases' references name, with a dependency that has a program too. */
export const PROGRAMS: Files = {
  "go.mod": goMod("example.com/app", {
    more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ./dep\n",
  }),
  "main.go": mainGo(),
  "uses.go": 'package main\n\nimport _ "example.com/dep"\n',
  "cmd/one/main.go": mainGo(),
  "cmd/two/main.go": mainGo(),
  "cmd/three/main.go": mainGo(),
  "lib/lib.go": "package lib\n",
  "dep/go.mod": goMod("example.com/dep"),
  "dep/dep.go": "package dep\n",
  "dep/cmd/far/main.go": mainGo(),
};

const ONE = "ko://example.com/app/cmd/one";
const TWO = "ko://example.com/app/cmd/two";
const THREE = "ko://example.com/app/cmd/three";

function labelled(name: string, labels: string, image: string): string {
  return `apiVersion: v1\nkind: Pod\nmetadata:\n  name: ${name}\n  labels: ${labels}\nspec: {image: ${image}}\n`;
}

function list(...items: readonly string[]): string {
  const shifted = items.map((item) => `- ${item.trimEnd().replaceAll("\n", "\n  ")}\n`);
  return `apiVersion: v1\nkind: List\nitems:\n${shifted.join("")}`;
}

export const YAML_CASES: readonly YamlCase[] = [
  {
    name: "values, in maps and sequences",
    files: {
      "in.yaml": `# a comment\nspec:\n  containers:\n  - name: a\n    image: ${ONE} # one\n  - image: ${TWO}\nlist:\n- ${THREE}\n`,
    },
  },
  { name: "keys", files: { "in.yaml": `${ONE}: value\nmap:\n  ${TWO}:\n    - ${THREE}: 1\n` } },
  {
    name: "complex keys",
    files: { "in.yaml": `? ${ONE}\n: a\n? - ${TWO}\n: b\n` },
  },
  { name: "quoted scalars", files: { "in.yaml": `single: '${ONE}'\ndouble: "${TWO}"\n"${ONE}": '${ONE}'\n` } },
  {
    name: "escapes",
    files: {
      "in.yaml": `a: "ko:\\x2f\\x2fexample.com/app/cmd/one"\nb: "\\u006bo://example.com/app/cmd/two"\nc: "ko://example.com/app/\\\n  cmd/three"\n`,
    },
  },
  {
    name: "blocks that hold nothing else",
    files: { "in.yaml": `strip: |-\n  ${ONE}\nfolded: >-\n  ${TWO}\nlast: |2-\n  ${THREE}\n` },
  },
  {
    name: "blocks with a last line end",
    files: { "in.yaml": `clip: |\n  ${ONE}\nkeep: >+\n  ${TWO}\n\nend: 1\n` },
  },
  { name: "blanks behind", files: { "in.yaml": `a: "${ONE} "\nb: '${TWO}  '\n` } },
  {
    name: "blanks before",
    files: { "in.yaml": `a: " ${ONE}"\nb: ${TWO}\n` },
  },
  {
    name: "anchors, aliases and merges",
    files: {
      "in.yaml": `a: &a ${ONE}\nb: *a\nc: &c\n  image: ${TWO}\n  other: 1\nd:\n  <<: *c\n  other: 2\ne: &e !!str ${THREE}\nf: [*a, *e]\n`,
    },
  },
  {
    name: "a tag of one's own",
    files: { "in.yaml": `a: !image ${ONE}\nb: !!str ${TWO}\nc: !<tag:yaml.org,2002:str> "${THREE}"\n` },
    ours: {
      why: "a tag says nothing of the scalar's text",
      documents: [{ a: "one@DIGEST", b: "two@DIGEST", c: "three@DIGEST" }],
    },
  },
  {
    name: "flow style",
    files: { "in.yaml": `{a: ${ONE}, b: [${TWO}, "${THREE}", '${ONE}'], ${TWO}: {c: ${THREE}}}\n` },
  },
  {
    name: "JSON",
    files: {
      "in.json": JSON.stringify({ a: ONE, b: [TWO, { [THREE]: "x\ty" }], n: 1.5, t: true, z: null }, undefined, "\t"),
    },
    args: ["-f", "in.json"],
  },
  {
    name: "JSON that escapes its slashes",
    files: { "in.json": JSON.stringify({ a: ONE }).replaceAll("/", "\\/") },
    args: ["-f", "in.json"],
    ours: { why: "it is JSON", documents: [{ a: "one@DIGEST" }] },
  },
  {
    name: "what is no reference",
    files: {
      "in.yaml": `a: image=${ONE}\nb: example.com/app/cmd/one\nc: "say ${ONE}"\nd: |\n  # ${ONE}\n  x: ${ONE}\ne: KO://example.com/app/cmd/one\nf: ko:/example.com/app/cmd/one\n# ${ONE}\n`,
    },
  },
  {
    name: "what the YAML says besides",
    files: {
      "in.yaml": `a: ${ONE}\nn: 0o17\no: 017\nh: 0x1F\nf: 1e3\ny: yes\nt: 2001-12-14t21:59:43.10-05:00\nnull: ~\nempty:\ns: "1"\nm: '1.0'\nu: "é😀\\u00e9"\nl: ${"word ".repeat(60)}\nb: !!binary aGVsbG8=\ni: .inf\n`,
    },
  },
  { name: "windows line ends", files: { "in.yaml": `a: ${ONE}\r\nb:\r\n  - "${TWO}"\r\n---\r\nc: ${THREE}\r\n` } },
  { name: "a byte order mark", files: { "in.yaml": `\uFEFFa: ${ONE}\n` } },
  {
    name: "a %YAML directive",
    files: { "in.yaml": `%YAML 1.2\n---\na: ${ONE}\n` },
    ours: { why: "YAML 1.2 may say that it is", documents: [{ a: "one@DIGEST" }] },
  },
  {
    name: "several documents, some of them empty",
    files: { "in.yaml": `---\na: ${ONE}\n---\n# nothing\n---\n\n...\n---\nb: ${TWO}\n...\n# end\n` },
  },
  { name: "a document that is one scalar", files: { "in.yaml": `--- ${ONE}\n--- '${TWO}'\n--- >-\n  ${THREE}\n` } },
  {
    name: "several files, by repeats and with commas, in that order",
    files: { "c.txt": `c: ${ONE}\n`, "a.yaml": `a: ${TWO}\n`, "b.yml": `b: ${ONE}\n`, "z.json": `{"z": "${THREE}"}` },
    args: ["-f", "z.json,a.yaml", "-f", "c.txt", "--filename=b.yml"],
  },
  {
    name: "a file that is named twice",
    files: { "in.yaml": `a: ${ONE}\n` },
    args: ["-f", "in.yaml", "-f", "./in.yaml"],
    ours: { why: "one file once", documents: [{ a: "one@DIGEST" }] },
  },
  {
    name: "a folder, by name, without its subfolders",
    files: {
      "d/b.yaml": `b: ${ONE}\n`,
      "d/a.json": `{"a": "${TWO}"}`,
      "d/c/c.yaml": "c: ko://nowhere\n",
      "d/README.md": "ko://nowhere\n",
    },
    args: ["-f", "d"],
  },
  {
    name: "a folder with its subfolders, and a link to a file",
    files: {
      "d/b.yaml": `b: ${ONE}\n`,
      "d/a/z.yaml": `z: ${TWO}\n`,
      "d/a/b/y.yaml": "y: 1\n",
      "d/c/c.yaml": `c: ${THREE}\n`,
      "d/a.yaml": "a: 1\n",
      "d/l.yaml": { link: "../other" },
      other: `l: ${TWO}\n`,
    },
    args: ["-R", "-f", "d/"],
  },
  {
    name: "a folder with .yml and dotfiles",
    files: { "d/a.yml": `a: ${ONE}\n`, "d/.b.yaml": `b: ${TWO}\n`, "d/c.yaml": "c: 1\n" },
    args: ["-f", "d"],
    ours: { why: ".yml counts, dotfiles do not", documents: [{ a: "one@DIGEST" }, { c: 1 }] },
  },
  { name: "standard input", stdin: `a: ${ONE}\n---\nb: ${TWO}\n`, args: ["-f", "-"] },
  {
    name: "standard input between files",
    files: { "a.yaml": `a: ${ONE}\n`, "b.yaml": `b: ${TWO}\n` },
    stdin: `s: ${THREE}\n`,
    args: ["-f", "a.yaml,-,b.yaml"],
  },
  ...[
    ["equality", "app=a"],
    ["inequality", "app!=a,tier"],
    ["a set", "app in (a, c), tier notin (back)"],
    ["existence", "!tier"],
    ["a comparison", "size>2"],
  ].map(([what = "", selector = ""]) => ({
    name: `-l: ${what}`,
    files: {
      "in.yaml": [
        labelled("1", "{app: a, tier: front, size: '3'}", ONE),
        labelled("2", "{app: b, tier: back}", selector.startsWith("app!=") ? TWO : "ko://nowhere"),
        labelled(
          "3",
          "{app: c}",
          selector.startsWith("app=") || selector.startsWith("size") || selector.startsWith("app!=")
            ? "ko://nowhere"
            : TWO,
        ),
        labelled("4", "{}", selector.startsWith("!") ? THREE : "ko://nowhere"),
      ].join("---\n"),
    },
    args: ["-f", "in.yaml", "-l", selector],
  })),
  {
    name: "-l: items of a List, one by one",
    files: {
      "in.yaml": `${list(
        labelled("1", "{app: a}", ONE),
        labelled("2", "{app: b}", "ko://nowhere"),
        labelled("3", "{app: a}", TWO),
      )}---\n${list(labelled("4", "{app: b}", "ko://nowhere"))}---\n${labelled("5", "{app: a}", THREE)}`,
    },
    args: ["-f", "in.yaml", "--selector=app=a"],
  },
  { name: "a List", files: { "in.yaml": list(labelled("1", "{}", ONE), labelled("2", "{}", TWO)) } },
  {
    name: "a dependency's program, and the module's root",
    files: { "in.yaml": "a: ko://example.com/dep/cmd/far\nb: ko://example.com/app\n" },
  },
  {
    name: "names: -B with a tag",
    files: { "in.yaml": `a: ${ONE}\nb: ${TWO}\n` },
    args: ["-B", "-t", "v1", "-f", "in.yaml"],
  },
  {
    name: "names: -P with two tags",
    files: { "in.yaml": `a: ${ONE}\n` },
    args: ["-P", "-t", "v1,v2", "-f", "in.yaml"],
  },
  {
    name: "names: --bare, --tag-only",
    files: { "in.yaml": `a: ${ONE}\n` },
    args: ["--bare", "--tag-only", "-t", "v1", "-f", "in.yaml"],
  },
];
