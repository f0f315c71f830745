/** Mutations of the Go installation, and of the go command. */
import { chmodSync, cpSync, readdirSync, readlinkSync, realpathSync, renameSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildFixture, goMod } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";
import type { MutationGroup, World } from "./world.ts";

const APP: Files = {
  "app/go.mod": goMod("example.com/app"),
  "app/cmd/app/main.go":
    'package main\n\nimport "unicode/utf16"\n\nfunc main() { println(utf16.RuneLen(rune(len(V))), V) }\n',
  "app/cmd/app/a.go": '//go:build !x\n\npackage main\n\nconst V = "a"\n',
  "app/cmd/app/b.go": '//go:build x\n\npackage main\n\nconst V = "b"\n',
};

/** The folder of the Go installation of this machine. */
export function findGoroot(): string {
  const go = Bun.which("go");
  if (go === null) throw new Error("there is no go on PATH");
  return dirname(dirname(realpathSync(go)));
}

/**
 * A Go installation of links, in the folder "goroot". Only these are there themselves: `go.env`, `VERSION`, the program `link`,
 * the go command, and the package unicode/utf16.
 */
export function linkGoroot(world: World): void {
  const real = findGoroot();
  const own = new Set([
    ...["", "src", "src/unicode", "pkg", "pkg/tool", "bin"],
    ...["go.env", "VERSION", "src/unicode/utf16", "bin/go"],
  ]);
  const visit = (path: string): void => {
    for (const name of readdirSync(join(real, path))) {
      const each = path === "" ? name : `${path}/${name}`;
      if (!own.has(each) && path !== "pkg/tool") symlinkSync(join(real, each), world.at(`goroot/${each}`));
      else if (/\/utf16$|^go\.env$|^VERSION$|bin\/go$/.test(each)) {
        cpSync(join(real, each), world.at(`goroot/${each}`), { recursive: true });
      } else if (path === "pkg/tool") {
        world.write({ [`goroot/${each}`]: null });
        for (const tool of readdirSync(join(real, each))) {
          if (tool === "link") cpSync(join(real, each, tool), world.at(`goroot/${each}/${tool}`));
          else symlinkSync(join(real, each, tool), world.at(`goroot/${each}/${tool}`));
        }
      } else {
        world.write({ [`goroot/${each}`]: null });
        visit(each);
      }
    }
  };
  world.write({ goroot: null });
  visit("");
}

const script = (text: string): Files[string] => ({
  executable: `#!/bin/sh\n${text}\nexec '${findGoroot()}/bin/go' "$@"\n`,
});

/** A program that is no script, as version managers are: it takes GOFLAGS from the file `.toolflags`. */
function buildChooser(): string {
  return buildFixture("gochooser");
}

/** Where this machine's tools are. */
function tools(world: World): string {
  const host = readdirSync(world.at("goroot/pkg/tool")).find((name) => name.includes("_")) ?? "";
  return `goroot/pkg/tool/${host}`;
}

export const TOOLCHAIN: readonly MutationGroup[] = [
  {
    name: "a Go installation",
    files: APP,
    env: (w) => ({ GOROOT: w.at("goroot"), PATH: `${w.at("goroot/bin")}:${w.env["PATH"]}` }),
    prepare: linkGoroot,
    mutations: [
      {
        name: "a source of Go's own is edited",
        change: (w) => w.append("goroot/src/unicode/utf16/utf16.go", "\nfunc init() { print(1) }\n"),
        makes: "another",
      },
      {
        name: "a source of Go's own no longer compiles",
        change: (w) => w.append("goroot/src/unicode/utf16/utf16.go", "\nvar X = y\n"),
        makes: "an error",
      },
      {
        name: "a source of Go's own is added",
        change: (w) => w.write({ "goroot/src/unicode/utf16/more.go": "package utf16\n\nfunc init() { print(1) }\n" }),
        makes: "another",
      },
      {
        name: "a test of Go's own is removed",
        change: (w) => w.remove("goroot/src/unicode/utf16/utf16_test.go"),
        makes: "the same",
      },
      { name: "a package of Go's own goes", change: (w) => w.remove("goroot/src/unicode/utf16"), makes: "an error" },
      { name: "VERSION is touched", change: (w) => w.append("goroot/VERSION", "\n"), makes: "the same" },
      { name: "VERSION goes", change: (w) => w.remove("goroot/VERSION"), makes: "the same" },
      { name: "the linker is touched", change: (w) => w.append(`${tools(w)}/link`, "x"), makes: "the same" },
      {
        name: "the linker is another",
        change: (w) =>
          w.write({
            [`${tools(w)}/link`]: {
              executable: `#!/bin/sh\nexec '${findGoroot()}/${tools(w).slice(7)}/link' "$@" -X=main.none=1 2>/dev/null\n`,
            },
          }),
        makes: "an error",
      },
      { name: "the linker goes", change: (w) => w.remove(`${tools(w)}/link`), makes: "an error" },
      { name: "the compiler goes", change: (w) => w.remove(`${tools(w)}/compile`), makes: "an error" },
      { name: "the go command is touched", change: (w) => w.append("goroot/bin/go", "x"), makes: "the same" },
      {
        name: "the go command is a script",
        change: (w) => w.write({ "goroot/bin/go": script("export GOFLAGS=-tags=x") }),
        makes: "another",
      },
      {
        name: "the go command is not executable",
        change: (w) => chmodSync(w.at("goroot/bin/go"), 0o644),
        makes: "the same",
      },
      {
        name: "the go command fails",
        change: (w) => w.write({ "goroot/bin/go": { executable: "#!/bin/sh\nexit 1\n" } }),
        makes: "an error",
      },
      { name: "the go command goes", change: (w) => w.remove("goroot/bin/go"), makes: "the same" },
      { name: "the installation moves away", change: (w) => renameSync(w.at("goroot"), w.at("x")), makes: "an error" },
      {
        name: "another go comes first on PATH",
        change: (w) => {
          w.env["PATH"] = `${w.at("bin")}:${w.env["PATH"]}`;
          w.write({ "bin/go": script("export GOFLAGS=-tags=x") });
        },
        makes: "another",
      },
      {
        name: "KO_GO_PATH names another go",
        change: (w) => {
          w.env["KO_GO_PATH"] = w.at("bin/go");
          w.write({ "bin/go": script("export GOFLAGS=-tags=x") });
        },
        makes: "another",
      },
      { name: "GOROOT is another", change: (w) => void (w.env["GOROOT"] = findGoroot()), makes: "the same" },
      { name: "GOROOT does not exist", change: (w) => void (w.env["GOROOT"] = w.at("none")), makes: "an error" },
      { name: "go.env sets a tag", change: (w) => w.append("goroot/go.env", "GOFLAGS=-tags=x\n"), makes: "another" },
      { name: "go.env gets a comment", change: (w) => w.append("goroot/go.env", "# more\n"), makes: "the same" },
      { name: "go.env goes", change: (w) => w.remove("goroot/go.env"), makes: "the same" },
      {
        name: "go.env sets an experiment",
        change: (w) => w.append("goroot/go.env", "GOEXPERIMENT=x\n"),
        makes: "an error",
      },
      {
        name: "go.env sets another GOROOT, which does not count",
        change: (w) => w.append("goroot/go.env", "GOROOT=/none\n"),
        makes: "the same",
      },
    ],
  },
  {
    name: "a link to the go command",
    files: { ...APP, "bin/go": { link: join(findGoroot(), "bin/go") } },
    mutations: [
      {
        name: "it leads to a script",
        change: (w) => w.write({ "bin/go": { link: "../other/go" }, "other/go": script("export GOFLAGS=-tags=x") }),
        makes: "another",
      },
      {
        name: "it leads through another link",
        change: (w) =>
          w.write({ "bin/go": { link: "../other/go" }, "other/go": { link: readlinkSync(w.at("bin/go")) } }),
        makes: "the same",
      },
      { name: "it leads nowhere", change: (w) => w.write({ "bin/go": { link: "none" } }), makes: "the same" },
      { name: "it goes", change: (w) => w.remove("bin/go"), makes: "the same" },
    ],
  },
  {
    name: "a script that chooses flags by a file",
    files: { ...APP, "bin/go": script('export GOFLAGS="$(cat flags)"'), "app/flags": "", "app/cmd/flags": "" },
    asks: ["list", "build"],
    mutations: [
      { name: "the file has a tag", change: (w) => w.write({ "app/flags": "-tags=x" }), makes: "another" },
      { name: "the file goes", change: (w) => w.remove("app/flags"), makes: "the same" },
      { name: "the script is edited", change: (w) => w.append("bin/go", "# more\n"), makes: "the same" },
    ],
  },
  {
    name: "a script that chooses flags for go build only",
    files: { ...APP, "bin/go": script('if [ "$1" = build ]; then export GOFLAGS="$(cat flags)"; fi'), "app/flags": "" },
    asks: ["list", "build"],
    mutations: [
      { name: "the file has a tag", change: (w) => w.write({ "app/flags": "-tags=x" }), makes: "another" },
      { name: "the file has a level", change: (w) => w.write({ "app/flags": "-gcflags=-N" }), makes: "another" },
    ],
  },
  {
    name: "a script that is another name of a script",
    files: {
      ...APP,
      "bin/go": { executable: '#!/bin/sh\nexec wrapped-go "$@"\n' },
      "bin/wrapped-go": script('export GOFLAGS="$(cat flags)"'),
      "app/flags": "",
    },
    asks: ["list", "build"],
    mutations: [
      { name: "the file has a tag", change: (w) => w.write({ "app/flags": "-tags=x" }), makes: "another" },
      {
        name: "the script is led elsewhere",
        change: (w) => w.write({ "bin/wrapped-go": { executable: "#!/bin/sh\nexit 1\n" } }),
        makes: "an error",
      },
    ],
  },
  {
    name: "a script that is another name of go",
    files: {
      ...APP,
      "bin/go": {
        executable: `#!/bin/sh\n# the go of this team\nexport GOFLAGS=-tags=none\nexec ${findGoroot()}/bin/go "$@"\n`,
      },
    },
    asks: ["env"],
    mutations: [
      { name: "its flags", change: (w) => w.edit("bin/go", "-tags=none", "-tags=x"), makes: "another" },
      { name: "a comment", change: (w) => w.edit("bin/go", "of this", "of the"), makes: "the same" },
      { name: "a source is edited", change: (w) => w.edit("app/cmd/app/a.go", '"a"', '"z"'), makes: "another" },
      {
        name: "it fails",
        change: (w) => w.write({ "bin/go": { executable: "#!/bin/sh\nexit 1\n" } }),
        makes: "an error",
      },
    ],
  },
  {
    name: "a program that chooses the go of a file",
    files: { ...APP, "bin/go": { link: buildChooser() }, "app/.toolflags": "-tags=none" },
    asks: ["env"],
    mutations: [
      { name: "the file has a tag", change: (w) => w.write({ "app/.toolflags": "-tags=x" }), makes: "another" },
      {
        name: "the file has another tag",
        change: (w) => w.write({ "app/.toolflags": "-tags=more" }),
        makes: "another",
      },
      { name: "the file goes", change: (w) => w.remove("app/.toolflags"), makes: "another" },
      { name: "a broken flag", change: (w) => w.write({ "app/.toolflags": "x" }), makes: "an error" },
      { name: "-toolexec", change: (w) => w.write({ "app/.toolflags": "-toolexec=env" }), makes: "any" },
      {
        name: "an overlay",
        change: (w) => {
          w.write({ "app/.toolflags": `-overlay=${w.at("overlay.json")}`, "overlay.json": "{}" });
        },
        makes: "another",
      },
      {
        name: "another version manager",
        change: (w) => w.write({ "bin/go": { link: join(findGoroot(), "bin/go") } }),
        makes: "another",
      },
    ],
  },
];
