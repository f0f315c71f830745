/** Parity cases: where the program's source is, how it is named, and how it is compiled. */
import { goMod, HELLO, mainGo } from "../helpers/go.ts";
import type { Case } from "../helpers/oracle.ts";

const DEPENDENCY_MAIN = 'package main\n\nimport "example.com/dep/words"\n\nfunc main() { println(words.Hello) }\n';
const WORDS = 'package words\n\nconst Hello = "hello"\n';

const TWO_MAINS = {
  "go.mod": goMod("example.com/two"),
  "cmd/one/main.go": mainGo(),
  "cmd/one/kodata/f": "one\n",
  "cmd/two/main.go": mainGo("two"),
};

export const MODULE_CASES: readonly Case[] = [
  { name: "one program in the root of its module" },
  { name: "no argument means the working directory", args: [] },
  {
    name: "names: two import paths, in the order given",
    files: TWO_MAINS,
    args: ["example.com/two/cmd/two", "./cmd/one"],
    order: [/\/two-/, /\/one-/],
  },
  { name: "names: ko:// before an import path", files: TWO_MAINS, args: ["ko://example.com/two/cmd/one"] },
  { name: "names: an import path twice", files: TWO_MAINS, args: ["./cmd/one", "example.com/two/cmd/one"] },
  {
    name: "names: capital letters in the import path",
    files: { "go.mod": goMod("example.com/Org/App"), "cmd/One/main.go": mainGo() },
    args: ["example.com/Org/App/cmd/One"],
  },
  { name: "names: a module that ends in /v2", files: { "go.mod": goMod("example.com/app/v2"), "main.go": mainGo() } },
  { name: "names: -P", files: TWO_MAINS, args: ["-P", "./cmd/one"] },
  { name: "names: -B", files: TWO_MAINS, args: ["-B", "./cmd/one", "./cmd/two"], order: [/\/one@/, /\/two@/] },
  { name: "names: --bare", args: ["--bare", "."] },
  { name: "tags: two", args: [".", "-t", "a,b"] },
  { name: "tags: the flag twice, and one tag twice", args: [".", "-t", "a", "--tags=b,a"] },
  { name: "tags: one that is not latest is printed", args: [".", "-t", "v1.2"] },
  { name: "tags: latest among others", args: [".", "-t", "latest,v1"] },
  { name: "tags: --tag-only", args: [".", "--tag-only", "-t", "v1"] },
  { name: "tags: an index", base: "index", args: [".", "--platform=linux/amd64,linux/arm64", "-t", "v1,v2"] },
  { name: "--image-refs: an image", imageRefs: true, args: [".", "-t", "v1"] },
  { name: "--image-refs: an index", imageRefs: true, base: "list", args: [".", "--platform=linux/amd64,linux/arm64"] },
  {
    name: "flags: labels, with blanks, signs and quotes",
    args: [".", "--image-label=a=b,c=d=e", "--image-label=f=g h", "--image-label", '"i=j,k"', "--image-label=<&>=ü"],
  },
  {
    name: "flags: annotations, on an image whose base has some",
    base: "annotated",
    args: [".", "--image-annotation=org.opencontainers.image.source=https://example.com/app,x=<y>"],
  },
  {
    name: "flags: annotations, on an index",
    base: "index",
    args: [".", "--platform=linux/amd64,linux/arm64", "--image-annotation=a=b", "--image-label=a=b"],
  },
  {
    name: "flags: annotations, on a Docker list",
    base: "list",
    args: [".", "--platform=linux/amd64,linux/arm64", "--image-annotation=a=b"],
  },
  { name: "flags: --image-user", args: [".", "--image-user=1234:5678"] },
  { name: "flags: --disable-optimizations", args: [".", "--disable-optimizations"] },
  {
    name: "go: GOFLAGS with a build tag and a linker flag",
    env: { GOFLAGS: "-buildvcs=false -tags=extra -ldflags=-s" },
    files: { ...HELLO, "extra.go": '//go:build extra\n\npackage main\n\nfunc init() { println("extra") }\n' },
  },
  { name: "go: the version of the repository in the binary", commit: true, env: { GOFLAGS: "" } },
  { name: "go: CGO_ENABLED and GOAMD64 of the user", env: { CGO_ENABLED: "0", GOAMD64: "v2" } },
  {
    name: "go: a file that is embedded",
    files: {
      "go.mod": goMod("example.com/embed"),
      "main.go":
        'package main\n\nimport _ "embed"\n\n//go:embed text.txt\nvar text string\n\nfunc main() { println(text) }\n',
      "text.txt": "embedded\n",
    },
  },
  {
    name: "modules: go.work",
    files: {
      "go.work": "go 1.21\n\nuse (\n\t./app\n\t./dep\n)\n",
      "app/go.mod": goMod("example.com/app"),
      "app/cmd/web/main.go": DEPENDENCY_MAIN,
      "app/cmd/web/kodata/f": "data\n",
      "dep/go.mod": goMod("example.com/dep"),
      "dep/words/words.go": WORDS,
    },
    args: ["./app/cmd/web"],
  },
  {
    name: "modules: a program of another module of go.work",
    files: {
      "go.work": "go 1.21\n\nuse (\n\t./app\n\t./tool\n)\n",
      "app/go.mod": goMod("example.com/app"),
      "app/main.go": mainGo(),
      "tool/go.mod": goMod("example.com/tool"),
      "tool/cmd/it/main.go": mainGo(),
    },
    cwd: "app",
    args: ["example.com/tool/cmd/it"],
  },
  {
    name: "modules: replace",
    files: {
      "go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ./third/dep\n",
      }),
      "main.go": DEPENDENCY_MAIN,
      "third/dep/go.mod": goMod("example.com/dep"),
      "third/dep/words/words.go": WORDS,
    },
  },
  {
    name: "modules: the main package of a replaced module",
    files: {
      "go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ./third/dep\n",
      }),
      "tools.go": '//go:build tools\n\npackage main\n\nimport _ "example.com/dep/cmd/it"\n',
      "main.go": mainGo(),
      "third/dep/go.mod": goMod("example.com/dep"),
      "third/dep/cmd/it/main.go": DEPENDENCY_MAIN,
      "third/dep/cmd/it/kodata/f": "data\n",
      "third/dep/words/words.go": WORDS,
    },
    args: ["example.com/dep/cmd/it"],
  },
  {
    name: "modules: the vendored main package of a dependency",
    files: {
      "go.mod": goMod("example.com/app", { more: "\nrequire example.com/dep v1.0.0\n" }),
      "main.go": mainGo(),
      "tools.go": '//go:build tools\n\npackage main\n\nimport _ "example.com/dep/cmd/it"\n',
      "vendor/modules.txt":
        "# example.com/dep v1.0.0\n## explicit; go 1.21\nexample.com/dep/cmd/it\nexample.com/dep/words\n",
      "vendor/example.com/dep/cmd/it/main.go": DEPENDENCY_MAIN,
      "vendor/example.com/dep/cmd/it/kodata/f": "vendored\n",
      "vendor/example.com/dep/words/words.go": WORDS,
    },
    args: ["example.com/dep/cmd/it"],
  },
  {
    name: "modules: a nested module, which ours finds from the root too",
    files: {
      ...HELLO,
      "nested/go.mod": goMod("example.com/hello/nested"),
      "nested/cmd/deep/main.go": mainGo(),
      "nested/cmd/deep/kodata/f": "deep\n",
    },
    cwd: "nested",
    args: ["./cmd/deep"],
    ours: [
      { cwd: "nested", args: ["./cmd/deep"] },
      { args: ["./nested/cmd/deep"] },
      { args: ["example.com/hello/nested/cmd/deep"] },
    ],
  },
  {
    name: "modules: two programs of two modules in one call",
    files: {
      "go.work": "go 1.21\n\nuse (\n\t./a\n\t./b\n)\n",
      "a/go.mod": goMod("example.com/a"),
      "a/cmd/web/main.go": mainGo(),
      "b/go.mod": goMod("example.com/b"),
      "b/cmd/web/main.go": mainGo("other"),
    },
    args: ["example.com/b/cmd/web", "example.com/a/cmd/web"],
  },
];
