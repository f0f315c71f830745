/**
 * How fast a layer is made, and in how much memory: `bun test/bench/layer.ts [MB of the program]`.
 *
 * Each row is a process of its own, so that its peak memory is its own; the time is that of `writeLayer` alone, the
 * best of five (one for the large file). Beside ours: the original's way, Go's gzip at BestSpeed, on the same bytes.
 */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { type Codec, CompressionPool } from "../../lib/compress.ts";
import { binaryEntries, kodataEntries } from "../../lib/kodata.ts";
import { writeLayer } from "../../lib/layer.ts";
import { silentLog } from "../../lib/log.ts";
import { MEDIA_TYPES } from "../../lib/oci.ts";
import { buildGotar } from "../helpers/go-fixtures.ts";

interface Row {
  readonly milliseconds: number;
  readonly outBytes: number;
  readonly peakBytes: number;
  readonly digest: string;
}

const MB = 1e6;
const GZIP_LEVELS = [1, 4, 6, 9] as const;

if (import.meta.main) {
  const [what, ...rest] = process.argv.slice(2);
  if (what === "row") await measureRow(rest);
  else await compare(Number(what ?? 48) * MB);
}

async function compare(programBytes: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "ko-bench-layer-"));
  try {
    const program = join(folder, "program");
    writeFileSync(program, realBytes(programBytes));
    const sparse = join(folder, "sparse");
    const handle = openSync(sparse, "w");
    ftruncateSync(handle, 1024 ** 3);
    closeSync(handle);
    const kodata = join(folder, "kodata");
    for (let d = 0; d < 100; d++) {
      mkdirSync(join(kodata, `${d}`), { recursive: true });
      for (let f = 0; f < 100; f++) writeFileSync(join(kodata, `${d}/${f}`), `file ${f}\n`.repeat(20));
    }
    console.log(`${availableParallelism()} cores, Bun ${Bun.version}`);
    for (const workers of [0, 1, 2, 4]) {
      print(`program, ${workers} workers`, statSync(program).size, row(["program", program, workers, 5, folder]));
    }
    for (const codec of ["gzip:4", "gzip:6", "gzip:9", "zstd"]) {
      print(`program, 2 workers, ${codec}`, statSync(program).size, row(["program", program, 2, 3, folder, codec]));
    }
    const gotar = buildGotar(folder);
    const start = Bun.nanoseconds();
    const out = gotar(["gzip", program]).byteLength;
    const milliseconds = (Bun.nanoseconds() - start) / 1e6;
    print("program, Go's gzip alone", statSync(program).size, {
      milliseconds,
      outBytes: out,
      peakBytes: 0,
      digest: "",
    });
    print("1 GB sparse file, 2 workers", 1024 ** 3, row(["program", sparse, 2, 1, folder]));
    print("10,000 kodata files, 2 workers", 10_000 * 140, row(["kodata", kodata, 2, 5, folder]));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Programs of the Go distribution, one after the other until there is enough. */
function realBytes(size: number): Uint8Array {
  const tools = ["compile", "link", "asm", "vet", "cover"].map((tool) => {
    return readFileSync(Bun.spawnSync(["go", "tool", "-n", tool]).stdout.toString().trim());
  });
  const parts: Uint8Array[] = [];
  for (let i = 0, sum = 0; sum < size; i++) {
    const tool = tools[i % tools.length] ?? new Uint8Array(1);
    parts.push(tool);
    sum += tool.byteLength;
  }
  return Buffer.concat(parts).subarray(0, size);
}

function row(args: readonly (string | number)[]): Row {
  const argv = [process.execPath, import.meta.path, "row", ...args.map(String)];
  const { stdout, stderr, exitCode } = Bun.spawnSync(argv);
  if (exitCode !== 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString());
}

async function measureRow([
  kind = "",
  path = "",
  workers = "",
  times = "",
  folder = "",
  compression = "gzip",
]: readonly string[]): Promise<void> {
  await using pool = new CompressionPool({ workers: Number(workers) });
  const file = join(folder, "layer");
  const level = GZIP_LEVELS.find((number) => compression === `gzip:${number}`) ?? 1;
  const codec: Codec = compression === "zstd" ? { kind: "zstd" } : { kind: "gzip", level };
  const { signal } = new AbortController();
  let best = Infinity;
  let digest = "";
  for (let i = 0; i < Number(times); i++) {
    const start = Bun.nanoseconds();
    const entries =
      kind === "program"
        ? binaryEntries({ path, name: "/ko-app/app", os: "linux", size: statSync(path).size })
        : kodataEntries({ directory: path, os: "linux", mtime: 0, allowedRoot: undefined, log: silentLog });
    const layer = await writeLayer(entries, { file, mediaType: MEDIA_TYPES.ociLayer, codec, pool, signal }).done;
    best = Math.min(best, (Bun.nanoseconds() - start) / 1e6);
    ({ digest } = layer.descriptor);
  }
  // Not `maxRSS`: Linux lets a process begin with that of the one that started it.
  const status = readFileSync("/proc/self/status", "utf8");
  const peakBytes = Number(/VmHWM:\s*(\d+) kB/.exec(status)?.[1]) * 1024;
  const result: Row = { milliseconds: best, outBytes: statSync(file).size, peakBytes, digest };
  console.log(JSON.stringify(result));
}

function print(name: string, inBytes: number, { milliseconds, outBytes, peakBytes, digest }: Row): void {
  const cells = [
    name.padEnd(32),
    `${milliseconds.toFixed(0)} ms`.padStart(9),
    `${(inBytes / MB / (milliseconds / 1000)).toFixed(0)} MB/s`.padStart(10),
    `${(outBytes / MB).toFixed(2)} MB out`.padStart(13),
    peakBytes === 0 ? "".padStart(14) : `${(peakBytes / MB).toFixed(0)} MB peak`.padStart(14),
    digest.slice(7, 19),
  ];
  console.log(cells.join(" "));
}
