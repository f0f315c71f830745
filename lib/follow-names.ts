/** The name before each line: the program's, with a number if there are several replicas. */
import { textAt } from "./json.ts";
import { shortNames } from "./progress-block.ts";
import { imageOf } from "./rollout-pods.ts";

export interface SourceOptions {
  /** As the API gives it. */
  readonly pod: unknown;
  readonly container: string;
  /** `deployment/web` */
  readonly resource: string;
  /** `web` */
  readonly name: string;
}

export interface Label {
  /** `web`, `web/2` */
  readonly text: string;
  /** The same number for the same program. */
  readonly colour: number;
}

/** A container of one Pod. Dispose of it when its log is over: its number is free then. */
export interface LogSource extends Disposable {
  label(): Label;
}

/** Labels of the Pods of one revision: Deployments and Jobs, StatefulSets and DaemonSets. */
const REVISIONS = ["pod-template-hash", "controller-revision-hash", "serving.knative.dev/revision"];

/** Programs, and the containers that run them. */
export class LogNames {
  /** Import paths by reference. */
  readonly #programs = new Map<string, string>();
  /** Import paths by repository: images of earlier runs have other digests. */
  readonly #repositories = new Map<string, Set<string>>();
  /** By program: the containers of objects that run it now, and in how many Pods. */
  readonly #users = new Map<string, Map<string, number>>();
  /** Numbers that are taken, by container and revision. */
  readonly #numbers = new Map<string, Set<number>>();

  know(reference: string, importPath: string): void {
    this.#programs.set(reference, importPath);
    const repository = repositoryOf(reference);
    this.#repositories.set(repository, (this.#repositories.get(repository) ?? new Set()).add(importPath));
  }

  /** Whether ko built the image. */
  isKnown(image: string): boolean {
    return this.#programs.has(image) || this.#repositories.has(repositoryOf(image));
  }

  add({ container, name, pod, resource }: SourceOptions): LogSource {
    const image = imageOf(pod, container);
    // With --bare, all programs have one repository.
    const [only, ...others] = this.#repositories.get(repositoryOf(image)) ?? [];
    const program = this.#programs.get(image) ?? (others.length === 0 ? only : undefined) ?? container;
    const user = JSON.stringify([resource, container]);
    const users = this.#users.get(program) ?? new Map<string, number>();
    this.#users.set(program, users.set(user, (users.get(user) ?? 0) + 1));
    const labels = REVISIONS.map((label) => textAt(pod, "metadata", "labels", label));
    const replicas = JSON.stringify([user, textAt(pod, "metadata", "namespace"), ...labels]);
    const taken = this.#numbers.get(replicas) ?? new Set();
    this.#numbers.set(replicas, taken);
    let number = 1;
    while (taken.has(number)) number += 1;
    taken.add(number);
    return {
      label: () => {
        const names = shortNames([...new Set(this.#programs.values())]);
        const own = names.get(program) ?? program;
        const text = users.size < 2 ? own : hasOne(users.keys(), resource) ? name : `${name}.${container}`;
        const colour = [...this.#users.keys()].indexOf(program);
        return { text: taken.size > 1 || number > 1 ? `${text}/${number}` : text, colour };
      },
      [Symbol.dispose]: () => {
        const left = (users.get(user) ?? 1) - 1;
        if (left > 0) users.set(user, left);
        else users.delete(user);
        taken.delete(number);
        if (taken.size === 0) this.#numbers.delete(replicas);
      },
    };
  }
}

/** Whether an object runs the program in one container only. */
function hasOne(users: Iterable<string>, resource: string): boolean {
  return [...users].filter((user) => user.startsWith(`${JSON.stringify([resource]).slice(0, -1)},`)).length === 1;
}

/** The image's name without tag and digest. */
function repositoryOf(reference: string): string {
  return reference.replace(/@.*$/, "").replace(/:[^:/]*$/, "");
}
