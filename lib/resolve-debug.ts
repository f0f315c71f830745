/** Tells how to connect a debugger to the programs of a run with `--debug`. */
import { type Debuggee, formatAttach, forwardCommand, placeArguments, startCommand } from "./kubectl-forward.ts";
import type { PodOptions } from "./kubectl.ts";
import type { Log } from "./log.ts";
import type { PublishedProgram } from "./pipeline.ts";
import { findWorkloads, type Workload } from "./yaml-workloads.ts";
import type { YamlDocument } from "./yaml.ts";

export interface WorkloadsOptions {
  /** The published program of each `ko://` value. */
  readonly images: ReadonlyMap<string, PublishedProgram>;
  readonly log: Pick<Log, "info">;
  /** Of `placeArguments()`. @default none */
  readonly place?: readonly string[] | undefined;
}

/** Logs the commands for programs that no YAML names. */
export function logPrograms(published: readonly PublishedProgram[], log: Pick<Log, "info">): void {
  for (const each of published) {
    const debuggee = toDebuggee(each);
    if (debuggee !== undefined) log.info(formatAttach(debuggee, [startCommand(each.reference, debuggee)]));
  }
}

/** Logs the commands for the program of a pod. */
export function logPod(
  name: string,
  published: PublishedProgram,
  { afterDashes, kubectl, log }: Pick<PodOptions, "afterDashes" | "kubectl" | "log">,
): void {
  const debuggee = toDebuggee(published);
  if (debuggee === undefined) return;
  const place = placeArguments([...kubectl, ...afterDashes]);
  log.info(formatAttach(debuggee, [forwardCommand(`pod/${name}`, { debug: debuggee.debug, place })]));
}

/** Logs the commands for programs, with the objects that run them. */
export async function logWorkloads(
  referring: readonly { readonly document: YamlDocument; readonly references: readonly unknown[] }[],
  { images, log, place }: WorkloadsOptions,
): Promise<void> {
  const found: Workload[] = [];
  for (const { document, references } of referring) {
    if (references.length > 0) found.push(...(await findWorkloads(document)));
  }
  const programs = new Map(Array.from(images.values(), (each) => [each.program.importPath, each]));
  for (const program of programs.values()) {
    const debuggee = toDebuggee(program);
    if (debuggee === undefined) continue;
    const isIts = (value: string): boolean => images.get(value)?.program.importPath === debuggee.importPath;
    const commands = found
      .filter(({ values }) => [...values].some(isIts))
      .map(({ namespace, resource = "pod/POD" }) => {
        return forwardCommand(resource, {
          debug: debuggee.debug,
          namespace,
          ...(place === undefined ? {} : { place }),
        });
      });
    log.info(formatAttach(debuggee, commands));
  }
}

function toDebuggee({ debug, program }: PublishedProgram): Debuggee | undefined {
  return debug === undefined ? undefined : { importPath: program.importPath, debug };
}
