/**
 * The second look at the inputs of programs, after go has ended: only if nothing has changed since the first one did go read
 * what is recorded.
 */
import { inBackground } from "./async.ts";
import { BuildInputs, type GitSeen, type ListDigest } from "./build-inputs.ts";
import type { Draft } from "./fingerprint-inputs.ts";
import { Prover } from "./fingerprint-prover.ts";
import { Looks } from "./fingerprint.ts";
import type { Program } from "./go-programs.ts";
import type { BuildSetup } from "./go-setup.ts";
import type { GoOptions } from "./go.ts";

/** The first look at the inputs of a program, to be confirmed after the build. */
export interface Taken {
  readonly draft: Draft;
  readonly git: GitSeen | undefined;
  readonly answer: string | undefined;
  readonly list: ListDigest;
  readonly setup: BuildSetup;
  readonly common: readonly string[];
}

/** The second look at inputs, after go has ended: shared by all programs of one `go build`. */
export class Confirmation {
  readonly prover: Prover = new Prover();
  readonly looks: Looks = new Looks();
  /** New ones, which ask anew. */
  readonly #inputs: BuildInputs;

  constructor(options: GoOptions) {
    this.#inputs = new BuildInputs(options);
  }

  /** Looks at folders, which may change soon, and starts git. */
  begin(taken: ReadonlyMap<Program, Taken>): void {
    for (const [program, { answer, draft, git, setup }] of taken) {
      this.prover.noteFolders(draft.inputs);
      if (answer !== undefined) void inBackground(this.answer(program, setup));
      if (git !== undefined) void inBackground(this.isSameGit(git, setup));
    }
  }

  /** What a go command that chooses which go runs answers now. */
  async answer({ workDir }: Program, { env }: BuildSetup): Promise<string | undefined> {
    return (await this.#inputs.answer(workDir, env))?.digest;
  }

  /** Whether Go stamps the same of a repository now. */
  async isSameGit({ root, state, stamp }: GitSeen, { env }: BuildSetup): Promise<boolean> {
    const [now, same] = await Promise.all([
      this.#inputs.gitState(root, env),
      this.#inputs.sameStamp(root, { env, known: stamp }),
    ]);
    return now === state && same !== undefined;
  }
}
