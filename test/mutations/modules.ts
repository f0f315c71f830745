/** Mutations of what chooses modules and their versions: go.mod, go.sum, go.work, vendor, replaced folders. */
import { renameSync, symlinkSync } from "node:fs";
import { goMod, libraryGo, mainGo } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";
import { type MutationGroup, proxyModule, type World } from "./world.ts";

const DEP = "example.com/dep";
const dep = (version: string, text: string): Files =>
  proxyModule(DEP, version, { "go.mod": goMod(DEP), "dep.go": libraryGo("dep", text) });

/** Two versions of a module on a proxy. `go mod tidy` of {@link prepare} writes go.sum. */
const PROXY: Files = {
  ...dep("v1.0.0", "dep 1"),
  ...dep("v1.1.0", "dep 2"),
  [`proxy/${DEP}/@v/list`]: "v1.0.0\nv1.1.0\n",
};

const MAIN = mainGo("main 1", [DEP]);

/** Downloads both versions, and leaves the sums of the first one. */
async function prepare(world: World): Promise<void> {
  await world.go("mod", "download", `${DEP}@v1.1.0`);
  await world.go("mod", "tidy");
}

const REPLACED: Files = {
  "app/go.mod": goMod("example.com/app", {
    more: `\nrequire ${DEP} v1.0.0\n\nreplace ${DEP} => ../dep\n`,
  }),
  "app/cmd/app/main.go": MAIN,
  "dep/go.mod": goMod(DEP),
  "dep/dep.go": libraryGo("dep"),
  "dep2/go.mod": goMod(DEP),
  "dep2/dep.go": libraryGo("dep", "dep 2"),
};

const WORKSPACE: Files = {
  "app/go.mod": goMod("example.com/app", { more: `\nrequire ${DEP} v1.0.0\n` }),
  "app/cmd/app/main.go": MAIN,
  "go.work": "go 1.21\n\nuse (\n\t./app\n\t./dep\n)\n",
  "dep/go.mod": goMod(DEP),
  "dep/dep.go": libraryGo("dep"),
  "dep2/go.mod": goMod(DEP),
  "dep2/dep.go": libraryGo("dep", "dep 2"),
};

const SUM = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

export const MODULES: readonly MutationGroup[] = [
  {
    name: "a module of a proxy",
    files: {
      "app/go.mod": goMod("example.com/app", { more: `\nrequire ${DEP} v1.0.0\n` }),
      "app/cmd/app/main.go": MAIN,
      "other/go.mod": goMod(DEP),
      "other/dep.go": libraryGo("dep", "other"),
      ...PROXY,
    },
    prepare,
    mutations: [
      {
        name: "another version is required, with sums",
        change: async (w) => {
          w.edit("app/go.mod", "v1.0.0", "v1.1.0");
          await w.go("mod", "tidy");
        },
        makes: "another",
      },
      {
        name: "another version is required, without sums",
        change: (w) => w.edit("app/go.mod", "v1.0.0", "v1.1.0"),
        makes: "an error",
      },
      {
        name: "a version that does not exist is required",
        change: (w) => w.edit("app/go.mod", "v1.0.0", "v1.9.0"),
        makes: "an error",
      },
      { name: "go.sum goes", change: (w) => w.remove("app/go.sum"), makes: "an error" },
      { name: "go.sum is emptied", change: (w) => w.write({ "app/go.sum": "" }), makes: "an error" },
      {
        name: "a sum is wrong",
        change: (w) => w.write({ "app/go.sum": `${DEP} v1.0.0 ${SUM}\n${w.read("app/go.sum").split("\n")[1]}\n` }),
        makes: "an error",
      },
      {
        name: "go.sum has a line more",
        change: (w) => w.append("app/go.sum", `example.com/x v1.0.0 ${SUM}\n`),
        makes: "the same",
      },
      { name: "go.sum is broken", change: (w) => w.append("app/go.sum", "x\n"), makes: "an error" },
      { name: "go.mod gets a comment", change: (w) => w.append("app/go.mod", "// more\n"), makes: "the same" },
      { name: "go.mod is broken", change: (w) => w.append("app/go.mod", "more\n"), makes: "an error" },
      { name: "go.mod goes", change: (w) => w.remove("app/go.mod"), makes: "an error" },
      {
        name: "the module gets another name",
        change: (w) => w.edit("app/go.mod", "example.com/app", "example.com/app2"),
        makes: "another",
      },
      { name: "the go line", change: (w) => w.edit("app/go.mod", "go 1.21", "go 1.20"), makes: "an error" },
      {
        name: "the go line asks for a newer Go",
        change: (w) => w.edit("app/go.mod", "go 1.21", "go 1.99"),
        makes: "an error",
      },
      { name: "a toolchain line", change: (w) => w.append("app/go.mod", "toolchain go1.21.1\n"), makes: "the same" },
      { name: "a godebug line", change: (w) => w.append("app/go.mod", "godebug panicnil=1\n"), makes: "another" },
      { name: "an exclude line", change: (w) => w.append("app/go.mod", `exclude ${DEP} v1.1.0\n`), makes: "the same" },
      {
        name: "the version is excluded",
        change: (w) => w.append("app/go.mod", `exclude ${DEP} v1.0.0\n`),
        makes: "an error",
      },
      { name: "a retract line", change: (w) => w.append("app/go.mod", "retract v1.0.0\n"), makes: "the same" },
      { name: "an ignore line", change: (w) => w.append("app/go.mod", "ignore ./none\n"), makes: "the same" },
      {
        name: "a folder replaces the module",
        change: (w) => w.append("app/go.mod", `replace ${DEP} => ../other\n`),
        makes: "another",
      },
      {
        name: "a version replaces the module",
        change: async (w) => {
          w.append("app/go.mod", `replace ${DEP} => ${DEP} v1.1.0\n`);
          await w.go("mod", "tidy");
        },
        makes: "another",
      },
      {
        name: "a replacement that does not exist",
        change: (w) => w.append("app/go.mod", `replace ${DEP} => ../none\n`),
        makes: "an error",
      },
      { name: "a go.work above", change: (w) => w.write({ "go.work": "go 1.21\n\nuse ./app\n" }), makes: "the same" },
      {
        name: "a go.work above with a module",
        change: (w) => w.write({ "go.work": "go 1.21\n\nuse (\n\t./app\n\t./other\n)\n" }),
        makes: "another",
      },
      {
        name: "a go.work beside go.mod",
        change: (w) => w.write({ "app/go.work": `go 1.21\n\nuse .\n\nreplace ${DEP} => ../other\n` }),
        makes: "another",
      },
      { name: "a broken go.work above", change: (w) => w.write({ "go.work": "x\n" }), makes: "an error" },
      {
        name: "a vendor folder without a list",
        change: (w) => w.write({ "app/vendor/example.com/dep/dep.go": libraryGo("dep", "v") }),
        makes: "an error",
      },
      { name: "a vendor folder", change: (w) => w.go("mod", "vendor"), makes: "another" },
    ],
  },
  {
    name: "a replaced module",
    files: REPLACED,
    mutations: [
      { name: "its source is edited", change: (w) => w.edit("dep/dep.go", "dep 1", "dep 3"), makes: "another" },
      {
        name: "a source is added",
        change: (w) => w.write({ "dep/more.go": 'package dep\n\nfunc init() { Text = "more" }\n' }),
        makes: "another",
      },
      {
        name: "its go.mod gets another go line",
        change: (w) => w.edit("dep/go.mod", "1.21", "1.20"),
        makes: "the same",
      },
      {
        name: "its go.mod asks for a newer Go",
        change: (w) => w.edit("dep/go.mod", "1.21", "1.99"),
        makes: "an error",
      },
      { name: "its go.mod goes", change: (w) => w.remove("dep/go.mod"), makes: "an error" },
      {
        name: "its go.mod has another name",
        change: (w) => w.edit("dep/go.mod", DEP, "example.com/x"),
        makes: "the same",
      },
      {
        name: "its go.mod requires a module",
        change: (w) => w.append("dep/go.mod", "require example.com/x v1.0.0\n"),
        makes: "the same",
      },
      { name: "another folder", change: (w) => w.edit("app/go.mod", "../dep", "../dep2"), makes: "another" },
      {
        name: "its folder becomes a link",
        change: (w) => {
          w.remove("dep");
          symlinkSync("dep2", w.at("dep"));
        },
        makes: "another",
      },
      {
        name: "its folder changes places",
        change: (w) => {
          renameSync(w.at("dep"), w.at("x"));
          renameSync(w.at("dep2"), w.at("dep"));
        },
        makes: "another",
      },
      {
        name: "the replacement is for another version",
        change: (w) => w.edit("app/go.mod", `${DEP} =>`, `${DEP} v1.5.0 =>`),
        makes: "an error",
      },
      {
        name: "the replacement goes",
        change: (w) => w.edit("app/go.mod", `replace ${DEP} => ../dep\n`, ""),
        makes: "an error",
      },
      {
        name: "the folder of another replacement",
        change: (w) => w.edit("dep2/dep.go", "dep 2", "dep 3"),
        makes: "the same",
      },
    ],
  },
  {
    name: "a workspace",
    files: WORKSPACE,
    mutations: [
      { name: "a used module is edited", change: (w) => w.edit("dep/dep.go", "dep 1", "dep 3"), makes: "another" },
      { name: "another module is used", change: (w) => w.edit("go.work", "./dep\n", "./dep2\n"), makes: "another" },
      { name: "a module is no longer used", change: (w) => w.edit("go.work", "\t./dep\n", ""), makes: "an error" },
      {
        name: "a module is used twice",
        change: (w) => w.edit("go.work", "\t./dep\n", "\t./dep\n\t./dep2\n"),
        makes: "an error",
      },
      { name: "the go line", change: (w) => w.edit("go.work", "go 1.21", "go 1.22"), makes: "another" },
      { name: "a godebug line", change: (w) => w.append("go.work", "godebug panicnil=1\n"), makes: "another" },
      { name: "a comment", change: (w) => w.append("go.work", "// more\n"), makes: "the same" },
      {
        name: "a replacement",
        change: (w) => w.append("go.work", "replace example.com/x => ./dep2\n"),
        makes: "the same",
      },
      { name: "go.work goes", change: (w) => w.remove("go.work"), makes: "an error" },
      {
        name: "a nearer go.work",
        change: (w) => w.write({ "app/go.work": "go 1.21\n\nuse (\n\t.\n\t../dep2\n)\n" }),
        makes: "another",
      },
      { name: "a nearer go.work that is a folder", change: (w) => w.write({ "app/go.work/x": "" }), makes: "the same" },
      {
        name: "go.work.sum",
        change: (w) => w.write({ "go.work.sum": `example.com/x v1.0.0 ${SUM}\n` }),
        makes: "the same",
      },
      { name: "a broken go.work.sum", change: (w) => w.write({ "go.work.sum": "x\n" }), makes: "the same" },
      { name: "GOWORK=off", change: (w) => void (w.env["GOWORK"] = "off"), makes: "an error" },
      { name: "GOWORK names the file", change: (w) => void (w.env["GOWORK"] = w.at("go.work")), makes: "the same" },
      { name: "the go.mod of a used module", change: (w) => w.edit("dep/go.mod", "1.21", "1.20"), makes: "the same" },
    ],
  },
  {
    name: "a vendor folder",
    files: {
      "app/go.mod": goMod("example.com/app", { more: `\nrequire ${DEP} v1.0.0\n` }),
      "app/cmd/app/main.go": MAIN,
      ...PROXY,
    },
    prepare: async (w) => {
      await prepare(w);
      await w.go("mod", "vendor");
    },
    mutations: [
      {
        name: "a vendored source is edited",
        change: (w) => w.edit("app/vendor/example.com/dep/dep.go", "dep 1", "dep 3"),
        makes: "another",
      },
      {
        name: "a vendored source is added",
        change: (w) =>
          w.write({ "app/vendor/example.com/dep/more.go": 'package dep\n\nfunc init() { Text = "more" }\n' }),
        makes: "another",
      },
      { name: "a vendored package goes", change: (w) => w.remove("app/vendor/example.com/dep"), makes: "an error" },
      { name: "modules.txt goes", change: (w) => w.remove("app/vendor/modules.txt"), makes: "an error" },
      {
        name: "modules.txt names another version",
        change: (w) => w.edit("app/vendor/modules.txt", "v1.0.0", "v1.1.0"),
        makes: "an error",
      },
      {
        name: "modules.txt lacks a package",
        change: (w) => w.edit("app/vendor/modules.txt", "\nexample.com/dep\n", "\n"),
        makes: "another",
      },
      {
        name: "modules.txt names another Go",
        change: (w) => w.edit("app/vendor/modules.txt", "go 1.21", "go 1.20"),
        makes: "the same",
      },
      { name: "vendor goes", change: (w) => w.remove("app/vendor"), makes: "another" },
      { name: "-mod=mod", change: (w) => void (w.env["GOFLAGS"] = "-mod=mod"), makes: "another" },
      {
        name: "the go line is older than vendoring",
        change: (w) => w.edit("app/go.mod", "go 1.21", "go 1.13"),
        makes: "an error",
      },
      { name: "go.sum goes", change: (w) => w.remove("app/go.sum"), makes: "the same" },
      {
        name: "vendor becomes a file",
        change: (w) => {
          w.remove("app/vendor");
          w.write({ "app/vendor": "" });
        },
        makes: "another",
      },
    ],
  },
];
