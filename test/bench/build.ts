/**
 * `ko build` against the original and against plain `go build`, in one run: start-up, a small program, a large one,
 * a large kodata file. Prints Markdown for docs/performance.md.
 *
 *     npm run build && npx bun test/bench/build.ts [ROUNDS]
 *
 * Needs docker-registry and the original ko (as the tests do). The large program is Knative's controller.
 */
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { findCounterparts, findKnativeModule } from "../helpers/counterparts.ts";
import { pushBases } from "../helpers/bases.ts";
import { startRegistry } from "../helpers/registry.ts";
import { compare, type Contender, formatTable } from "./measure.ts";

const OURS = resolve(import.meta.dir, "../../ko");
const rounds = Number(process.argv[2] ?? 5);
const counterparts = findCounterparts(["ko", "docker-registry"]);
if (counterparts === undefined) throw new Error("docker-registry and the original ko are needed: see .ci/run");
const original = counterparts.ko;

await using registry = await startRegistry();
const bases = await pushBases(registry.host);
const folder = await mkdtemp(join(tmpdir(), "ko-bench-"));
try {
  const config = join(folder, "config");
  await mkdir(config);
  await writeFile(join(config, ".ko.yaml"), `defaultBaseImage: ${bases.oci.reference}\n`);
  const common: Record<string, string> = {};
  for (const [key, value] of Object.entries(process.env)) {
    if (value !== undefined && !key.startsWith("KO") && !key.startsWith("GOOS")) common[key] = value;
  }
  const env = { ...common, KO_CONFIG_PATH: config, DOCKER_CONFIG: config, TZ: "UTC" };

  console.log(
    formatTable(
      "start: `ko version`",
      await compare(
        [
          { name: "ko", argv: () => [OURS, "version"], cwd: folder, env: () => env },
          { name: "original", argv: () => [original, "version"], cwd: folder, env: () => env },
        ],
        rounds * 6,
      ),
      "original",
    ),
  );

  const small = join(folder, "small");
  await mkdir(small);
  await writeFile(join(small, "go.mod"), "module example.com/small\n\ngo 1.24\n");
  await writeFile(
    join(small, "main.go"),
    'package main\n\nimport "net/http"\n\nfunc main() { _ = http.ListenAndServe(":8080", nil) }\n',
  );
  await benchProgram("a small program (net/http)", { cwd: small, importPath: "example.com/small" });

  const knative = findKnativeModule();
  if (knative !== undefined) {
    const large = join(folder, "large");
    await cp(knative, large, { recursive: true });
    await Bun.spawn(["chmod", "-R", "u+w", large]).exited;
    await benchProgram("a large program (Knative's controller)", {
      cwd: large,
      importPath: "knative.dev/serving/cmd/controller",
    });
  }

  const kodata = join(folder, "kodata");
  await mkdir(join(kodata, "kodata"), { recursive: true });
  await writeFile(join(kodata, "go.mod"), "module example.com/kodata\n\ngo 1.24\n");
  await writeFile(join(kodata, "main.go"), "package main\n\nfunc main() {}\n");
  await fillFile(join(kodata, "kodata", "big"), 1024);
  await benchProgram("1 GB of kodata", { cwd: kodata, importPath: "example.com/kodata" });

  interface Program {
    readonly cwd: string;
    readonly importPath: string;
  }

  /** First builds (empty repositories, nothing to reuse but Go's build cache) and second ones. */
  async function benchProgram(title: string, { cwd, importPath }: Program): Promise<void> {
    const out = join(folder, "out");
    const goBuild = (fresh: boolean): Contender => ({
      name: "go build",
      prepare: async () => {
        if (fresh) await rm(out, { recursive: true, force: true });
        await mkdir(out, { recursive: true });
      },
      argv: () => ["go", "build", "-trimpath", "-o", `${out}/`, importPath],
      cwd,
      env: () => ({ ...common, CGO_ENABLED: "0", GOOS: "linux", GOARCH: "amd64" }),
    });
    const ko = (name: string, program: string, kind: string): Contender => ({
      name,
      argv: () => [program, "build", ...(name === "ko" ? [] : ["--sbom=none"]), importPath],
      cwd,
      env: (round) => ({
        ...env,
        KO_DOCKER_REPO: `${registry.host}/${name}/${kind === "first" ? `${kind}${round}` : kind}`,
      }),
    });
    for (const kind of ["first", "second"]) {
      // One untimed round fills Go's build cache, and for "second" the repositories.
      const contenders = [goBuild(kind === "first"), ko("ko", OURS, kind), ko("original", original, kind)];
      await compare(
        contenders.map((contender) => ({ ...contender, env: () => contender.env(-1) })),
        1,
      );
      const measured = await compare(
        contenders.map((contender) => ({
          ...contender,
          env: (round: number) => contender.env(kind === "first" ? round : -1),
        })),
        rounds,
      );
      console.log(formatTable(`${title}: ${kind} build`, measured, "go build"));
    }
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}

/** Bytes that compress about as a program does: blocks that repeat after a while. */
async function fillFile(path: string, megabytes: number): Promise<void> {
  const block = new Uint8Array(1024 * 1024);
  for (let i = 0; i < block.length; i += 64) crypto.getRandomValues(block.subarray(i, i + 32));
  const writer = Bun.file(path).writer();
  for (let i = 0; i < megabytes; i++) {
    block[0] = i & 255;
    await writer.write(block);
    await writer.flush();
  }
  await writer.end();
}
