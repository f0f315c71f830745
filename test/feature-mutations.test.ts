/**
 * One thing in the world is changed, and a build with a warm cache makes the image, or fails, as a build without the cache
 * does; put back, it makes the first image again.
 *
 * The mutations are tables in `test/mutations/`, a file for each subject: everything that `strace go build` opens or looks at,
 * and everything that git reads for go.
 */
import { describe, expect, test } from "bun:test";
import { SETTLED_MS } from "./helpers/world-bench.ts";
import { ENVIRONMENT } from "./mutations/environment.ts";
import { GIT } from "./mutations/git.ts";
import { IMAGE } from "./mutations/image.ts";
import { MODULE_CACHE } from "./mutations/module-cache.ts";
import { MODULES } from "./mutations/modules.ts";
import { SETTINGS } from "./mutations/settings.ts";
import { SOURCES } from "./mutations/sources.ts";
import { TOOLCHAIN } from "./mutations/toolchain.ts";
import { type MutationGroup, Stage } from "./mutations/world.ts";

const GROUPS: readonly MutationGroup[] = [
  ...SOURCES,
  ...MODULES,
  ...MODULE_CACHE,
  ...TOOLCHAIN,
  ...SETTINGS,
  ...ENVIRONMENT,
  ...GIT,
  ...IMAGE,
];

/** Outside of CI, the part of the mutations that a run makes. `KO_MUTATIONS=all` makes all of them. */
const PART = process.env["CI"] || process.env["KO_MUTATIONS"] === "all" ? 1 : 6;
const SEED = Number(process.env["KO_RANDOM_SEED"] || 0);

/** Milliseconds for one mutation on a busy machine. */
const PATIENCE = 30_000;

test("there are at least 150 mutations, each with a name of its own", () => {
  const names = GROUPS.flatMap(({ name, mutations }) => mutations.map((each) => `${name}: ${each.name}`));
  expect(new Set(names).size).toBe(names.length);
  expect(names.length).toBeGreaterThanOrEqual(150);
});

describe.each(GROUPS)("$name", (group) => {
  const mutations = group.mutations.filter((_, i) => i % PART === SEED % PART);
  test(
    `the cache and a build without it agree on ${mutations.length} of ${group.mutations.length} mutations, seed ${SEED}`,
    async () => {
      const { asks = [] } = group;
      using stage = await Stage.open(group);
      await Bun.sleep(SETTLED_MS);
      const first = await stage.run({ cache: true });
      expect(first.images, first.stderr).toStartWith("sha256:");
      const faults: string[] = [];
      for (const { change, makes, name } of mutations) {
        const warm = await stage.run({ cache: true });
        if (warm.images !== first.images || warm.go.join(" ") !== asks.join(" ")) {
          faults.push(`${name}: before it, go was asked ${warm.go.join(" ")}\n${warm.stderr}`);
        }
        await change(stage.world);
        const [cached, right] = await Promise.all([stage.run({ cache: true }), stage.run({ cache: false })]);
        const made = right.images === "FAILED" ? "an error" : right.images === first.images ? "the same" : "another";
        if (cached.images !== right.images) {
          faults.push(`${name}: with the cache ${cached.images}, without ${right.images}\n${right.stderr}`);
        } else if (makes !== "any" && made !== makes)
          faults.push(`${name}: go makes ${made}, not ${makes}\n${right.stderr}`);
        stage.undo();
        await Bun.sleep(SETTLED_MS);
        const again = await stage.run({ cache: true });
        if (again.images !== first.images) faults.push(`${name}: put back, it makes ${again.images}\n${again.stderr}`);
      }
      expect(faults).toEqual([]);
    },
    (mutations.length + 2) * PATIENCE,
  );
});
