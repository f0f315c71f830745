/** Images as a build makes them for a daemon: the base's layers compressed, the program's one not. */
import type { Image, Layer } from "../../lib/image.ts";
import { describe, digestOf, verified } from "../../lib/oci.ts";
import { makeImage, randomImage } from "./images.ts";

export interface DaemonImageOptions {
  /** Images of one base share its layers. @default "base" */
  readonly base?: string;
  /** Of the program's layer: another seed is another program. */
  readonly seed: string;
  /** Bytes of the program. @default 3000 */
  readonly fileSize?: number;
}

/** An image of a base with two layers, and a layer of its own whose digest is its diffID. */
export async function daemonImage({ base = "base", seed, fileSize = 3000 }: DaemonImageOptions): Promise<Image> {
  const under = await randomImage({ seed: base });
  const own = await randomImage({ seed, layers: 1, fileSize });
  const layers = [...under.layers, ...(await Promise.all(own.layers.map(uncompressed)))];
  const config = {
    ...under.config,
    history: layers.map(() => ({ created: "2020-01-02T03:04:05Z" })),
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  };
  return makeImage({ config, layers, format: "oci", annotations: {} });
}

async function uncompressed(layer: Layer): Promise<Layer> {
  const tar = new Uint8Array(Bun.gunzipSync(Buffer.concat(await Array.fromAsync(layer.open()))));
  const descriptor = describe("application/vnd.oci.image.layer.v1.tar", tar);
  return {
    descriptor,
    diffId: digestOf(tar),
    open: () => verified(chunked(tar), descriptor, `layer ${descriptor.digest}`),
  };
}

async function* chunked(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  for (let at = 0; at < bytes.byteLength; at += 65_536) yield bytes.subarray(at, at + 65_536);
}
