/** Mutations of the module cache: of what `go build` looks at there, which is more than go.sum guards. */
import { chmodSync, readdirSync, renameSync, statSync, symlinkSync, utimesSync } from "node:fs";
import { goMod, libraryGo, mainGo } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";
import { type MutationGroup, proxyModule, type World } from "./world.ts";

const FAR = "example.com/far";
const AT = `modules/${FAR}@v1.0.0`;
const DOWNLOADED = `modules/cache/download/${FAR}/@v/v1.0.0`;

const PROXY: Files = proxyModule(FAR, "v1.0.0", {
  "go.mod": goMod(FAR),
  "far.go": 'package far\n\nimport "embed"\n\n//go:embed data\nvar Data embed.FS\n\nvar Text = "far 1"\n',
  "far_windows.go": 'package far\n\nfunc init() { Text = "windows" }\n',
  "far_test.go": "package far\n",
  "data/a.txt": "a 1",
  "deep/deep.go": libraryGo("deep"),
});

/** Downloads the module; from then on there is no proxy. */
async function prepare(world: World): Promise<void> {
  world.env["GOPROXY"] = `file://${world.at("proxy")}`;
  await world.go("mod", "tidy");
  await world.go("mod", "download", FAR);
  world.env["GOPROXY"] = "off";
}

/** Edits a file as with a debugger in mind: it alone becomes writable. */
function edit(world: World, path: string, [from, to]: readonly [string, string]): void {
  chmodSync(world.at(path), 0o644);
  world.edit(path, from, to);
}

/** Lets work be done in a folder of the module. */
function within(world: World, folder: string, work: () => unknown): void {
  chmodSync(world.at(folder), 0o755);
  work();
  chmodSync(world.at(folder), 0o555);
}

export const MODULE_CACHE: readonly MutationGroup[] = [
  {
    name: "a module in the module cache",
    files: {
      "app/go.mod": goMod("example.com/app", { more: `\nrequire ${FAR} v1.0.0\n` }),
      "app/cmd/app/main.go": mainGo("main 1", [FAR, `${FAR}/deep`]),
      ...PROXY,
    },
    env: () => ({ GOPROXY: "off" }),
    prepare,
    mutations: [
      { name: "a source is edited", change: (w) => edit(w, `${AT}/far.go`, ["far 1", "far 22"]), makes: "another" },
      {
        name: "a source of a package below is edited secretly",
        change: (w) => {
          const { atime, mtime } = statSync(w.at(`${AT}/deep/deep.go`));
          edit(w, `${AT}/deep/deep.go`, ["deep 1", "deep 2"]);
          utimesSync(w.at(`${AT}/deep/deep.go`), atime, mtime);
        },
        makes: "another",
      },
      {
        name: "a source is replaced",
        change: (w) =>
          within(w, AT, () => {
            w.write({ [`${AT}/new`]: w.read(`${AT}/far.go`).replace("far 1", "far 2") });
            renameSync(w.at(`${AT}/new`), w.at(`${AT}/far.go`));
          }),
        makes: "another",
      },
      {
        name: "a source becomes a link",
        change: (w) =>
          within(w, AT, () => {
            w.write({ "other.go": w.read(`${AT}/far.go`).replace("far 1", "far 2") });
            w.remove(`${AT}/far.go`);
            symlinkSync(w.at("other.go"), w.at(`${AT}/far.go`));
          }),
        makes: "another",
      },
      {
        name: "a source goes",
        change: (w) => within(w, `${AT}/deep`, () => w.remove(`${AT}/deep/deep.go`)),
        makes: "an error",
      },
      {
        name: "a source no longer compiles",
        change: (w) => edit(w, `${AT}/far.go`, ["var Text", "vra Text"]),
        makes: "an error",
      },
      {
        name: "a source is added, which go's index of the module does not have",
        change: (w) =>
          within(w, AT, () => w.write({ [`${AT}/more.go`]: 'package far\n\nfunc init() { Text = "more" }\n' })),
        makes: "any",
      },
      {
        name: "a source for another system is edited",
        change: (w) => edit(w, `${AT}/far_windows.go`, ["windows", "other"]),
        makes: "the same",
      },
      { name: "a test is broken", change: (w) => edit(w, `${AT}/far_test.go`, ["package", "pakcage"]), makes: "any" },
      {
        name: "an embedded file is edited",
        change: (w) => edit(w, `${AT}/data/a.txt`, ["a 1", "a 2"]),
        makes: "another",
      },
      {
        name: "an embedded file is added",
        change: (w) => within(w, `${AT}/data`, () => w.write({ [`${AT}/data/b.txt`]: "b" })),
        makes: "another",
      },
      {
        name: "the folder of embedded files becomes a link",
        change: (w) =>
          within(w, AT, () => {
            chmodSync(w.at(`${AT}/data`), 0o755);
            renameSync(w.at(`${AT}/data`), w.at(`${AT}/moved`));
            symlinkSync("moved", w.at(`${AT}/data`));
          }),
        makes: "an error",
      },
      {
        name: "its go.mod asks for a newer Go",
        change: (w) => edit(w, `${AT}/go.mod`, ["go 1.21", "go 1.99"]),
        makes: "an error",
      },
      { name: "its go.mod goes", change: (w) => within(w, AT, () => w.remove(`${AT}/go.mod`)), makes: "the same" },
      {
        name: "its folder goes",
        change: (w) => {
          for (const folder of [`${AT}/data`, `${AT}/deep`, AT]) chmodSync(w.at(folder), 0o755);
          w.remove(AT, `${DOWNLOADED}.zip`);
        },
        makes: "an error",
      },
      { name: "its files become writable", change: (w) => chmodSync(w.at(`${AT}/far.go`), 0o644), makes: "the same" },
      {
        name: "its cached .mod no longer fits its sum",
        change: (w) => w.append(`${DOWNLOADED}.mod`, "// more\n"),
        makes: "an error",
      },
      { name: "its cached .mod goes", change: (w) => w.remove(`${DOWNLOADED}.mod`), makes: "an error" },
      {
        name: "its cached .ziphash is another",
        change: (w) => w.write({ [`${DOWNLOADED}.ziphash`]: "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" }),
        makes: "an error",
      },
      {
        name: "its cached .zip and .ziphash go",
        change: (w) => w.remove(`${DOWNLOADED}.ziphash`, `${DOWNLOADED}.zip`),
        makes: "an error",
      },
      {
        name: "it was extracted in part",
        change: (w) => {
          w.write({ [`${DOWNLOADED}.partial`]: "" });
          w.remove(`${DOWNLOADED}.zip`);
        },
        makes: "an error",
      },
      {
        name: "its cached .info names another version",
        change: (w) => w.edit(`${DOWNLOADED}.info`, "v1.0.0", "v1.0.1"),
        makes: "another",
      },
      { name: "its cached .info goes", change: (w) => w.remove(`${DOWNLOADED}.info`), makes: "the same" },
      {
        name: "another version is in the cache",
        change: (w) => w.write({ [`modules/cache/download/${FAR}/@v/v1.1.0.info`]: '{"Version":"v1.1.0"}' }),
        makes: "the same",
      },
      {
        name: "a folder of the program's module takes its place",
        change: (w) => {
          w.edit("app/go.mod", "module example.com/app", "module example.com");
          w.write({ "app/far/far.go": libraryGo("far") });
        },
        makes: "an error",
      },
    ],
  },
  {
    name: "a module of the same path above another, in the module cache",
    files: {
      "app/go.mod": goMod("example.com/app", { more: "\nrequire example.com/app/api v1.0.0\n" }),
      "app/cmd/app/main.go": mainGo("main 1", ["example.com/app/api"]),
      ...proxyModule("example.com/app/api", "v1.0.0", {
        "go.mod": goMod("example.com/app/api"),
        "api.go": libraryGo("api"),
      }),
    },
    prepare: (w) => w.go("mod", "tidy"),
    mutations: [
      {
        name: "the upper one provides the package too",
        change: (w) => w.write({ "app/api/api.go": libraryGo("api", "api 2") }),
        makes: "an error",
      },
      {
        name: "the upper one has a folder there without Go files",
        change: (w) => w.write({ "app/api/README.md": "" }),
        makes: "the same",
      },
      {
        name: "the upper one has a test there",
        change: (w) => w.write({ "app/api/api_test.go": "package api\n" }),
        makes: "an error",
      },
      {
        name: "another module lies there",
        change: (w) => w.write({ "app/api/api.go": libraryGo("api", "api 2"), "app/api/go.mod": "module x\n" }),
        makes: "the same",
      },
    ],
  },
  {
    name: "the version of a commit in the module cache",
    files: {
      "app/go.mod": goMod("example.com/app", { more: `\nrequire ${FAR} v1.0.0\n` }),
      "app/cmd/app/main.go": mainGo("main 1", [FAR]),
      ...PROXY,
    },
    env: () => ({ GOPROXY: "off" }),
    prepare: async (w) => {
      await prepare(w);
      await w.git("init", "-q", "-b", "main");
      await w.git("add", "-A");
      await w.git("commit", "-q", "-m", "one");
      // Go keeps a version without a tag for the commit.
      await w.go("build", "-o", "/dev/null", "./cmd/app");
      await w.git("tag", "v1.2.3");
    },
    mutations: [
      {
        name: "it goes",
        change: (w) => w.remove("modules/cache/download/example.com/app"),
        makes: "another",
      },
      {
        name: "its time is another",
        change: (w) => {
          const folder = "modules/cache/download/example.com/app/@v";
          const name = readdirSync(w.at(folder)).find((each) => each.endsWith(".info"));
          w.edit(`${folder}/${name}`, "T", "T");
        },
        makes: "the same",
      },
    ],
  },
];
