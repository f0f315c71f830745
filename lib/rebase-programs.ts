/** Takes the programs out of the layers of an image, into files. */
import { join } from "node:path";
import { KoError, printable } from "./errors.ts";
import { writeWhole } from "./file.ts";
import { filesOf, type ProgramLayers } from "./image-derive.ts";
import { visitLayer } from "./layer-read.ts";

/** A program that is larger is refused: bytes of the layer's tar. */
const MOST_BYTES = 4 * 1024 ** 3;

/** A program of an image. */
export interface ExtractedProgram {
  /** The path of the file that has it now. */
  readonly file: string;
  /** Bytes of the uncompressed tar of its layer. */
  readonly layerBytes: number;
}

/**
 * Writes the programs of an image to a folder, the user's first.
 *
 * @throws {KoError} If a layer does not have its program.
 */
export async function extractPrograms(
  settings: ProgramLayers,
  { folder, signal }: { readonly folder: string; readonly signal: AbortSignal },
): Promise<readonly ExtractedProgram[]> {
  const layers = [settings.program, ...(settings.debugger === undefined ? [] : [settings.debugger.layer])];
  const names = filesOf(settings);
  return Promise.all(
    layers.map(async (layer, i) => {
      const wanted = names[i] ?? "";
      // Two images may have one layer, and are read at the same time.
      const file = join(folder, crypto.randomUUID());
      let isThere = false;
      const layerBytes = await visitLayer(layer, {
        signal,
        most: MOST_BYTES,
        visit: async ({ name, type }, content) => {
          if (type !== "file" || name.replace(/^\/?(?:Files\/)?/, "") !== wanted) return;
          isThere = true;
          await writeWhole(file, content, signal);
        },
      });
      if (!isThere) throw new KoError(`its layer ${layer.descriptor.digest} does not have ${printable(wanted)}`);
      return { file, layerBytes };
    }),
  );
}
