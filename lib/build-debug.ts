/** The layer of Delve in the image of a program that is built with `--debug`. */
import type { Binary } from "./build-binaries.ts";
import type { RunContext } from "./cache.ts";
import { KoError } from "./errors.ts";
import type { DelveBuilds } from "./go-delve.ts";
import { debuggerPath, type DebugSettings } from "./image-config.ts";
import type { ImageDebugger } from "./image.ts";
import { binaryEntries } from "./kodata.ts";
import type { LayerSink, LayerStore } from "./layer-cache.ts";
import type { TarEntry } from "./tar.ts";

export interface DebuggerOptions {
  readonly context: RunContext;
  readonly delve: DelveBuilds;
  readonly debug: DebugSettings;
  readonly layers: LayerStore;
  readonly sink: LayerSink;
}

/** Delve for an image. */
export interface DebuggerFile {
  /** Absolute; the file stays until the run ends. */
  readonly path: string;
  readonly image: ImageDebugger;
}

/**
 * Makes the layer of the Delve that suits a program. It is the same for all programs of a platform and a version of Go.
 * A program's capabilities are not given to its debugger.
 *
 * @throws {KoError} If Delve cannot be compiled.
 */
export async function makeDebugger(binary: Binary, options: DebuggerOptions): Promise<DebuggerFile> {
  const { context, debug, delve, layers, sink } = options;
  const { os } = binary.platform;
  const goVersion = await readGoVersion(binary, context);
  const { digest, path } = await delve.of(binary, { goVersion, signal: context.signal });
  const list = (): Iterable<TarEntry> => binaryEntries({ path, name: debuggerPath(os), os, size: Bun.file(path).size });
  const name = `Delve ${digest}${os === "windows" ? " for windows" : ""}`;
  return { path, image: { ...debug, layer: await layers.fixed(name, list, { sink }) } };
}

/** Reads the version of Go from the program itself: a program of the cache says it without go. */
async function readGoVersion({ path, why }: Binary, { cache }: RunContext): Promise<string> {
  const { readBuildInfo } = await import("./go-buildinfo.ts");
  try {
    return (await readBuildInfo(path)).goVersion;
  } catch (error) {
    // The program was in order when it was stored: another process has changed it in place.
    if (why === undefined && error instanceof KoError) cache?.reportDamage(error.message);
    throw error;
  }
}
