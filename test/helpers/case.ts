/**
 * What one parity case is: a source tree, a base, an environment and arguments. The tables in `test/parity/` hold
 * them; `test/feature-parity.test.ts` runs each with the original ko and with ours.
 */
import type { BaseName, Bases } from "./bases.ts";
import type { Invocation } from "./oracle.ts";
import type { Files } from "./tree.ts";

export interface Case {
  /** In plain words; the test's name. */
  readonly name: string;
  /** The tree. @default {@link HELLO} */
  readonly files?: Files;
  /** Makes the tree a git repository with one commit. @default {false} */
  readonly commit?: boolean;
  /** What `defaultBaseImage` in `.ko.yaml` names, and what the build stands on. @default {"oci"} */
  readonly base?: BaseName;
  /** The whole `.ko.yaml`, where it is more than the default base. */
  readonly config?: (bases: Bases) => string;
  readonly env?: Readonly<Record<string, string>> | ((bases: Bases) => Readonly<Record<string, string>>);
  /** What follows `ko build`. @default {["."]} */
  readonly args?: readonly string[];
  /** Working directory below the tree. @default its root */
  readonly cwd?: string;
  /** Other ways to run ours that must come to the same. */
  readonly ours?: readonly Invocation[];
  /** The repositories that ours prints, in order, where the order is the point. */
  readonly order?: readonly RegExp[];
  readonly imageRefs?: boolean;
  /** False where crane refuses what the original pushes too. @default {true} */
  readonly validate?: boolean;
}
