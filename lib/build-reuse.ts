/**
 * `reuse: code`: an image of an older commit is kept as long as no input of its program has changed since. Go would stamp a
 * newer commit into the program: the files of git that only this stamp is made of may differ.
 */
import type { GitSeen } from "./build-inputs.ts";
import { isInside } from "./file.ts";
import type { Inputs } from "./fingerprint-prover.ts";
import { readGitFolders } from "./git.ts";

/**
 * The inputs of a program without those that decide only the stamp: tags, settings and history of its repository.
 *
 * @param written the folder of the versions that Go makes of commits
 */
export function withoutStamp(inputs: Inputs, { root }: GitSeen, written: string | undefined): Inputs {
  const { own, shared } = readGitFolders(root) ?? {};
  const places = [own, shared, written].filter((place) => place !== undefined);
  const isKept = (path: string): boolean => !places.some((place) => isInside(path, place));
  return {
    folders: inputs.folders.filter(({ dir }) => isKept(dir)),
    files: inputs.files.filter(([path]) => isKept(path)),
    racy: inputs.racy.filter(([path]) => isKept(path)),
  };
}

/**
 * The commit that a build was stamped with, if its image may be kept in the git state of now; else undefined.
 *
 * An image of a work tree with changes is not kept for one without: its stamp names a commit that never had that code.
 */
export function keptCommit({ state }: GitSeen, now: string): string | undefined {
  const [commit = "", change] = state.split(" ");
  const isCommit = /^[0-9a-f]{40,64}$/.test(commit);
  return isCommit && (change === "clean" || now.endsWith(" changed")) ? commit : undefined;
}
