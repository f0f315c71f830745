/** Reads `repo`, `naming` and `sbom` of `.ko.yaml`: where images go, and under which names. Flags and variables come first. */
import type { ConfigValue, Setting } from "./config-file.ts";
import { findNearest, UsageError } from "./errors.ts";
import { readTarget } from "./publish-destination.ts";
import type { Naming } from "./reference.ts";

/** What a file says of places and names. */
export interface PlaceSettings {
  /** For runs without `KO_DOCKER_REPO`. */
  readonly repo?: Setting<string> | undefined;
  /** For runs without one of the flags of names. */
  readonly naming?: Setting<Naming> | undefined;
  /** For runs without `--sbom`. */
  readonly sbom?: Setting<"spdx" | "none"> | undefined;
}

/** The ways to name images, by the flag that chooses each; `md5` is the default, and has none. */
const NAMINGS: Readonly<Record<string, Naming>> = {
  md5: "md5",
  "preserve-import-paths": "preserve",
  "base-import-paths": "base",
  bare: "bare",
};
const SBOMS = ["spdx", "none"] as const;

/** Reads the value of `repo`: as `KO_DOCKER_REPO` has it. */
export function readRepo(value: ConfigValue): Setting<string> {
  const { value: text, where } = value.text("repo");
  if (text.replace(/\/+$/, "") === "") throw value.wrongType("repo", "a repository, such as registry.example.com/team");
  readTarget(text, `${where}: repo`);
  return { value: text, where };
}

export function readNaming(value: ConfigValue): Setting<Naming> {
  const { value: text, where } = value.text("naming");
  const found = NAMINGS[text];
  if (found !== undefined) return { value: found, where };
  throw refuse(`${where}: naming`, { text, known: Object.keys(NAMINGS) });
}

export function readSbom(value: ConfigValue): Setting<"spdx" | "none"> {
  const { value: text, where } = value.text("sbom");
  const found = SBOMS.find((each) => each === text);
  if (found !== undefined) return { value: found, where };
  throw refuse(`${where}: sbom`, { text, known: SBOMS });
}

function refuse(
  setting: string,
  { known, text }: { readonly known: readonly string[]; readonly text: string },
): UsageError {
  const nearest = findNearest(text, known);
  const advice = nearest === undefined ? `wanted ${known.join(", ")}` : `the nearest is "${nearest}"`;
  return new UsageError(`Cannot use ${setting}: "${text}" is not a choice, ${advice}`);
}
