/**
 * What SBOMs cost a run in which nothing changed: `ko resolve` of Knative Serving's config with `--sbom=spdx` and with
 * `--sbom=none`, in turns. Prints Markdown for docs/performance.md, and each single run on stderr.
 *
 *     npm run build && npx bun test/bench/sbom.ts [ROUNDS] [small]
 *
 * With `small`, nine programs that are compiled in seconds take the place of Knative's: an unchanged run reads none.
 *
 * Needs docker-registry, as the tests do. Both get the same cache and the same sources, so only the flag differs.
 */
import { resolve } from "node:path";
import { findCounterparts, prepareKnative } from "../helpers/counterparts.ts";
import { goMod, mainGo } from "../helpers/go.ts";
import { pushBases } from "../helpers/oracle-bases.ts";
import { startRegistry } from "../helpers/registry.ts";
import { writeTree } from "../helpers/world-folders.ts";
import { cleanEnvironment } from "../helpers/world-programs.ts";
import { compare, type Contender, formatTime } from "./measure.ts";

const OURS = resolve(import.meta.dir, "../../ko");
const KINDS = ["none", "spdx"] as const;
/** The most milliseconds that the SBOMs of the nine images may cost. */
const GOAL_MS = 10;

const rounds = Number(process.argv[2] ?? 15);
if (findCounterparts(["docker-registry"]) === undefined) throw new Error("docker-registry is needed: see .ci/run");
await using registry = await startRegistry();
const base = (await pushBases(registry.host)).oci;
using folder = writeTree({ docker: null, "config/.ko.yaml": `defaultBaseImage: ${base.reference}\n` });
const env = {
  ...cleanEnvironment(folder.path),
  GOFLAGS: "-buildvcs=false",
  KOCACHE: folder.at("cache"),
  KO_DOCKER_REPO: `${registry.host}/serving`,
};

const isSmall = process.argv[3] === "small";
const tree = isSmall ? makeSmall() : await prepareKnative();
const printed = new Set<string>();
const contenders = KINDS.map((kind): Contender => ({
  name: `--sbom=${kind}`,
  argv: () => [OURS, "resolve", "-q", "-R", "-f", "config", `--sbom=${kind}`],
  cwd: tree,
  env: () => env,
  check: (stdout) => void printed.add(stdout),
}));
console.error("the first builds: where Go's build cache is empty, minutes");
await compare(contenders, 2);
const measured = await compare(contenders, rounds);
if (printed.size !== 1) throw new Error("the runs did not print the same");

const [none, spdx] = measured;
if (none === undefined || spdx === undefined) throw new Error("nothing was measured");
console.log(
  [
    `### ${isSmall ? "Nine small programs" : "Knative Serving, 9 programs"}, \`resolve -R -f config\`, nothing changed, ${rounds} rounds`,
    "",
    "| | time | processor time | peak memory of the process itself |",
    "|---|---|---|---|",
    ...measured.map(({ cpu, megabytes, ms, name }) => {
      return `| \`${name}\` | ${formatTime(ms)} | ${formatTime(cpu)} | ${megabytes.toFixed(0)} MB |`;
    }),
    `| difference (goal: ${GOAL_MS} ms) | ${formatTime(spdx.ms - none.ms)} | ${formatTime(spdx.cpu - none.cpu)} | |`,
    "",
  ].join("\n"),
);

/** Makes a module with nine programs and their YAML. */
function makeSmall(): string {
  const names = Array.from({ length: 9 }, (_, i) => `p${i}`);
  const programs = names.map((name) => [`small/cmd/${name}/main.go`, mainGo(name)]);
  const yaml = names.map((name) => `image: ko://example.com/small/cmd/${name}\n`).join("---\n");
  folder.write({
    ...Object.fromEntries(programs),
    "small/go.mod": goMod("example.com/small"),
    "small/config/images.yaml": yaml,
  });
  return folder.at("small");
}
