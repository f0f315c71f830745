/** `ko size`: the bytes of an image by base, kodata and program, and those of the program by module and package. */
import { LazyCache } from "./cache.ts";
import { loadConfig, parsePublished } from "./config.ts";
import { KoError, printable } from "./errors.ts";
import { type GoBuildInfo, readBuildInfo } from "./go-buildinfo.ts";
import type { Host } from "./host.ts";
import { splitLayers } from "./image-derive.ts";
import { type Image, type Layer, platformOf } from "./image.ts";
import { visitLayer } from "./layer-read.ts";
import type { Log } from "./log.ts";
import { formatPlatform } from "./oci.ts";
import { Resources } from "./pipeline-resources.ts";
import { extractPrograms } from "./rebase-programs.ts";
import { OTHERS, readSizes, TABLES } from "./size-symbols.ts";
import { noTiming } from "./timing.ts";

export interface SizeRequest {
  /** One image, or two to compare. */
  readonly words: readonly string[];
  readonly json: boolean;
  readonly insecureRegistry: boolean;
}

/** Bytes in the registry, and of the tar archives. */
interface LayerBytes {
  readonly compressed: number;
  readonly uncompressed: number;
}

/** The bytes of one platform of an image. */
interface PlatformSize {
  readonly platform: string;
  readonly base: LayerBytes;
  readonly kodata: LayerBytes;
  readonly program: LayerBytes;
  /** Bytes of the program's file. */
  readonly file: number;
  readonly sections: Readonly<Record<string, number>>;
  /** By module, then by package; undefined without a symbol table. */
  readonly modules: Readonly<Record<string, Readonly<Record<string, number>>>> | undefined;
}

interface MeasureOptions {
  readonly folder: string;
  readonly signal: AbortSignal;
}

const VERSION = 1;
/** The most bytes of one layer's tar. */
const MOST_BYTES = 16 * 1024 ** 3;
const STANDARD = "std";

/**
 * @returns the text for stdout
 * @throws {KoError} If an image cannot be read, or was not made by ko.
 */
export async function runSize(
  { insecureRegistry, json, words }: SizeRequest,
  { host, log }: { readonly host: Host; readonly log: Log },
): Promise<string> {
  const hosts = words.map((text) => parsePublished(text, { cwd: host.cwd, action: "measure" }).host);
  const { registries } = await loadConfig(host);
  await using cache = new LazyCache(host, log);
  const context = { host, log, timing: noTiming, signal: host.signal, cache: cache.get() };
  const insecureHosts = insecureRegistry ? hosts : [];
  await using resources = new Resources({ context, insecureHosts, registries, compress: true });
  await using folder = await host.tempFolder("ko-size");
  const all: (readonly PlatformSize[])[] = [];
  for (const text of words) {
    try {
      const whole = await resources.base(text);
      const sizes: PlatformSize[] = [];
      for (const entry of whole.entries ?? [undefined]) {
        sizes.push(await measure(await whole.image(entry), { folder: folder.path, signal: host.signal }));
      }
      all.push(sizes);
    } catch (cause) {
      if (!(cause instanceof KoError)) throw cause;
      throw new KoError(`Cannot measure "${text}"`, { cause });
    }
  }
  const [first = [], second] = all;
  if (json) {
    const images = words.map((image, i) => ({ image, platforms: all[i] }));
    return `${JSON.stringify({ version: VERSION, images }, undefined, 2)}\n`;
  }
  for (const { modules, platform } of all.flat()) {
    if (modules === undefined)
      log.warn(`The program for ${platform} has no symbol table (-ldflags=-s): only its sections are known`);
  }
  if (second === undefined) return first.map(format).join("\n");
  return first
    .flatMap((size) => {
      const other = second.find(({ platform }) => platform === size.platform);
      return other === undefined ? [] : [formatDifference(size, other)];
    })
    .join("\n");
}

async function measure(image: Image, options: MeasureOptions): Promise<PlatformSize> {
  const split = splitLayers(image);
  const [program] = await extractPrograms(split, options);
  if (program === undefined) throw new RangeError("an image without a program");
  const [info, sizes] = [await readBuildInfo(program.file), await readSizes(program.file)];
  return {
    platform: formatPlatform(platformOf(image)),
    base: await add(split.base, options),
    kodata: await add([split.kodata], options),
    program: { compressed: split.program.descriptor.size, uncompressed: program.layerBytes },
    file: sizes.file,
    sections: Object.fromEntries(sizes.sections),
    modules: sizes.packages && byModule(sizes.packages, info),
  };
}

async function add(layers: readonly Layer[], { signal }: MeasureOptions): Promise<LayerBytes> {
  let [compressed, uncompressed] = [0, 0];
  for (const layer of layers) {
    compressed += layer.descriptor.size;
    uncompressed += await visitLayer(layer, { signal, most: MOST_BYTES, visit: () => {} });
  }
  return { compressed, uncompressed };
}

/** Packages of no module are of Go itself. The longest path of a module wins. */
function byModule(packages: ReadonlyMap<string, number>, info: GoBuildInfo): NonNullable<PlatformSize["modules"]> {
  const paths = [...(info.main === undefined ? [] : [info.main]), ...info.deps].map(({ path }) => path);
  const own = info.main?.path ?? STANDARD;
  // The names are those of a foreign file: "constructor" may be one.
  const modules = new Map<string, Map<string, number>>();
  for (const [name, size] of [...packages].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))) {
    const isTable = name === TABLES || name === OTHERS;
    const found = paths.filter((path) => name === path || name.startsWith(`${path}/`));
    const longest = found.sort((a, b) => b.length - a.length)[0];
    const module = isTable ? name : name === "main" ? own : (longest ?? STANDARD);
    const known = modules.get(module) ?? new Map<string, number>();
    modules.set(module, known.set(name, size));
  }
  return Object.fromEntries(Array.from(modules, ([module, each]) => [module, Object.fromEntries(each)]));
}

function sum(packages: Readonly<Record<string, number>> = {}): number {
  return Object.values(packages).reduce((total, size) => total + size, 0);
}

function format({ base, file, kodata, modules, platform, program, sections }: PlatformSize): string {
  const rows: (readonly [string, string, string])[] = [
    [platform, "compressed", "uncompressed"],
    ...Object.entries({ base, kodata, program }).map(([name, { compressed, uncompressed }]) => {
      return [`  ${name}`, String(compressed), String(uncompressed)] as const;
    }),
    ["  program's file", "", String(file)],
  ];
  if (modules === undefined) {
    rows.push(...Object.entries(sections).map(([name, size]) => [`    ${name}`, "", String(size)] as const));
  }
  const sorted = Object.entries(modules ?? {}).sort(([, a], [, b]) => sum(b) - sum(a));
  for (const [module, packages] of sorted) {
    rows.push([`    ${module}`, "", String(sum(packages))]);
    const names = Object.entries(packages).filter(([name]) => name !== module || Object.keys(packages).length > 1);
    rows.push(...names.map(([name, size]) => [`      ${name}`, "", String(size)] as const));
  }
  return align(rows);
}

function formatDifference(a: PlatformSize, b: PlatformSize): string {
  const signed = (number: number): string => (number > 0 ? `+${number}` : String(number));
  const parts = (["base", "kodata", "program"] as const).map((part) => {
    const [compressed, uncompressed] = [
      b[part].compressed - a[part].compressed,
      b[part].uncompressed - a[part].uncompressed,
    ];
    return [`  ${part}`, signed(compressed), signed(uncompressed)] as const;
  });
  const flat = ({ modules, sections }: PlatformSize): ReadonlyMap<string, number> =>
    new Map(modules === undefined ? Object.entries(sections) : Object.values(modules).flatMap(Object.entries<number>));
  const [before, after] = [flat(a), flat(b)];
  const isAlike = (a.modules === undefined) === (b.modules === undefined);
  const names = isAlike ? [...new Set([...before.keys(), ...after.keys()])] : [];
  const changes = names
    .map((name) => [name, (after.get(name) ?? 0) - (before.get(name) ?? 0)] as const)
    .filter(([, size]) => size !== 0)
    .sort((x, y) => Math.abs(y[1]) - Math.abs(x[1]));
  return align([
    [a.platform, "compressed", "uncompressed"],
    ...parts,
    ["  program's file", "", signed(b.file - a.file)],
    ...changes.map(([name, size]) => [`    ${name}`, "", signed(size)] as const),
  ]);
}

function align(rows: readonly (readonly [string, string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows
    .map(([name, a, b]) => `${printable(name).padEnd(width)}  ${a.padStart(12)}  ${b.padStart(12)}\n`)
    .join("");
}
