/** Mutations of what an image has beside its program: kodata, .ko.yaml, base. */
import { chmodSync, mkdirSync, renameSync, utimesSync } from "node:fs";
import { goMod, mainGo } from "../helpers/go.ts";
import type { Files } from "../helpers/world-folders.ts";
import type { MutationGroup } from "./world.ts";

const FILES: Files = {
  "app/go.mod": goMod("example.com/app"),
  "app/cmd/app/main.go": mainGo(),
  "app/cmd/app/kodata/a.txt": "a 1",
  "app/cmd/app/kodata/deep/b.txt": "b 1",
  "app/cmd/app/kodata/link": { link: "../../../data/x" },
  "app/cmd/app/kodata/folder": { link: "../../../data/more" },
  "app/cmd/app/x.go": "//go:build x\n\npackage main\n\nfunc init() { print(1) }\n",
  "app/data/x": "x 1",
  "app/data/y": "y 1",
  "app/data/more/z": "z 1",
  "app/.git/HEAD": "ref: refs/heads/main\n",
};

const KODATA = "app/cmd/app/kodata";
const CONFIG = "app/.ko.yaml";

export const IMAGE: readonly MutationGroup[] = [
  {
    name: "kodata",
    files: FILES,
    env: () => ({ GOFLAGS: "-buildvcs=false" }),
    mutations: [
      { name: "a file is edited", change: (w) => w.edit(`${KODATA}/a.txt`, "1", "2"), makes: "another" },
      {
        name: "a file of a folder is edited",
        change: (w) => w.edit(`${KODATA}/deep/b.txt`, "1", "2"),
        makes: "another",
      },
      { name: "a file is touched", change: (w) => utimesSync(w.at(`${KODATA}/a.txt`), 1, 1), makes: "the same" },
      { name: "a file becomes executable", change: (w) => chmodSync(w.at(`${KODATA}/a.txt`), 0o755), makes: "any" },
      { name: "a file is added", change: (w) => w.write({ [`${KODATA}/.new`]: "" }), makes: "another" },
      { name: "a file is removed", change: (w) => w.remove(`${KODATA}/a.txt`), makes: "another" },
      {
        name: "a file is renamed",
        change: (w) => renameSync(w.at(`${KODATA}/a.txt`), w.at(`${KODATA}/b.txt`)),
        makes: "another",
      },
      { name: "an empty folder is added", change: (w) => mkdirSync(w.at(`${KODATA}/empty`)), makes: "another" },
      { name: "the target of a link is edited", change: (w) => w.edit("app/data/x", "1", "2"), makes: "another" },
      {
        name: "a link is led elsewhere",
        change: (w) => w.write({ [`${KODATA}/link`]: { link: "../../../data/y" } }),
        makes: "another",
      },
      {
        name: "a link leads nowhere",
        change: (w) => w.write({ [`${KODATA}/link`]: { link: "none" } }),
        makes: "another",
      },
      {
        name: "a link leads out of the work tree",
        change: (w) => w.write({ [`${KODATA}/link`]: { link: "/etc/hostname" } }),
        makes: "an error",
      },
      { name: "a link becomes a file", change: (w) => w.write({ [`${KODATA}/link`]: "x 1" }), makes: "the same" },
      {
        name: "a file of a linked folder is edited",
        change: (w) => w.edit("app/data/more/z", "1", "2"),
        makes: "another",
      },
      {
        name: "a file is added to a linked folder",
        change: (w) => w.write({ "app/data/more/new": "" }),
        makes: "another",
      },
      { name: "all of it goes", change: (w) => w.remove(KODATA), makes: "another" },
      {
        name: "a file in its place",
        change: (w) => {
          w.remove(KODATA);
          w.write({ [KODATA]: "x" });
        },
        makes: "any",
      },
    ],
  },
  {
    name: ".ko.yaml",
    files: FILES,
    env: () => ({ GOFLAGS: "-buildvcs=false" }),
    mutations: [
      { name: "another base", change: (w) => w.edit(CONFIG, "scratch", "ko.builtin/static"), makes: "another" },
      {
        name: "a base for the program",
        change: (w) => w.append(CONFIG, "baseImageOverrides:\n  example.com/app/cmd/app: ko.builtin/static\n"),
        makes: "another",
      },
      {
        name: "a base for another program",
        change: (w) => w.append(CONFIG, "baseImageOverrides:\n  example.com/app/cmd/x: ko.builtin/static\n"),
        makes: "the same",
      },
      {
        name: "flags of an entry",
        change: (w) => w.append(CONFIG, "builds:\n- main: ./cmd/app\n  flags: [-tags=x]\n"),
        makes: "another",
      },
      {
        name: "an entry without flags",
        change: (w) => w.append(CONFIG, "builds:\n- main: ./cmd/app\n"),
        makes: "the same",
      },
      {
        name: "variables of an entry",
        change: (w) => w.append(CONFIG, "builds:\n- main: ./cmd/app\n  env: ['GOFLAGS=-tags=x -buildvcs=false']\n"),
        makes: "another",
      },
      { name: "default flags", change: (w) => w.append(CONFIG, "defaultFlags: [-tags=x]\n"), makes: "another" },
      {
        name: "default variables",
        change: (w) => w.append(CONFIG, "defaultEnv: ['GOFLAGS=-tags=x -buildvcs=false']\n"),
        makes: "another",
      },
      {
        name: "default platforms",
        change: (w) => w.append(CONFIG, "defaultPlatforms: [linux/arm64]\n"),
        makes: "another",
      },
      { name: "a comment", change: (w) => w.append(CONFIG, "# more\n"), makes: "the same" },
      { name: "it is broken", change: (w) => w.append(CONFIG, "a: [\n"), makes: "an error" },
      { name: "-toolexec", change: (w) => w.append(CONFIG, "defaultFlags: [-toolexec=env]\n"), makes: "an error" },
    ],
  },
];
