/**
 * Collects the files and folders that decide something, each once: an {@link InputPlan}.
 */
import { basename, dirname } from "node:path";
import { look } from "./file.ts";
import type { FolderPlan, InputPlan } from "./fingerprint-inputs.ts";

export class PlanMaker {
  readonly #folders = new Map<string, FolderPlan>();
  readonly #files = new Set<string>();
  readonly #named = new Map<string, Omit<FolderPlan, "names"> & { readonly names: Set<string> }>();

  /** Adds a folder, unless it is there already. */
  folder(folder: FolderPlan): void {
    const key = `${folder.kind} ${folder.dir}`;
    if (this.#folders.get(key)?.seen === undefined) this.#folders.set(key, folder);
  }

  /** Adds a folder all of whose names count, not its files. */
  entries(dir: string, { module }: Pick<FolderPlan, "module"> = {}): void {
    this.folder({ dir, kind: "entries", module });
  }

  /** Adds a file, existing or not. A folder in its place counts as existing only. */
  file(path: string): void {
    this.#files.add(path);
  }

  /** Adds a place that may become a folder, or a folder all of whose names count. */
  place(path: string): void {
    if (look(path)?.isDirectory() === true) this.entries(path);
    else this.file(path);
  }

  /** Adds a certain name in a folder, existing or not. @param options.module as of a {@link FolderPlan} */
  name(
    path: string,
    { kind, module }: { readonly kind: "embedded" | "files"; readonly module?: string | undefined },
  ): void {
    const dir = dirname(path);
    const key = `${kind} ${dir}`;
    const found = this.#named.get(key);
    if (found === undefined) this.#named.set(key, { dir, kind, module, names: new Set([basename(path)]) });
    else found.names.add(basename(path));
  }

  done(): InputPlan {
    const named = Array.from(this.#named.values(), (each) => ({ ...each, names: [...each.names].sort() }));
    return { folders: [...this.#folders.values(), ...named], files: [...this.#files] };
  }
}
