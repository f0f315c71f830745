/**
 * SBOMs beside the original's: each program is built and pushed by the original with `--sbom-dir`. Our documents are made
 * twice: of the very image that the original pushed and of the program in its last layer, and by ours from the command
 * line. They are equal but for the differences that each case lists, and for digests of images where ours built them.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { type GoBuildInfo, readBuildInfo } from "../lib/go-buildinfo.ts";
import type { Built, Image } from "../lib/image.ts";
import { silentLog } from "../lib/log.ts";
import { readConfig } from "../lib/oci-config.ts";
import { describe as describeBytes, type Digest, type Platform, readIndex, readManifest } from "../lib/oci.ts";
import { pushSbom } from "../lib/publish-sbom.ts";
import { makeSbomImage, makeSboms, type Sbom, type SbomContent, SPDX_MEDIA_TYPE } from "../lib/sbom.ts";
import { sbomTag } from "../lib/publish-sbom.ts";
import { findCounterparts, ORIGINAL } from "./helpers/counterparts.ts";
import { askGo, base64 } from "./helpers/go-fixtures.ts";
import { goMod, HELLO } from "./helpers/go.ts";
import { type Bases, pushBases } from "./helpers/oracle-bases.ts";
import { makeClient } from "./helpers/registry-client.ts";
import { pull, type Pulled, type PulledImage, pullLayer, pullTags } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { findSpdxProblems } from "./helpers/sbom.ts";
import { type Files, type Tree, writeTree } from "./helpers/world-folders.ts";
import { cleanEnvironment, commitTree, ourCommand, output } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "ko", "crane"]);
/** Milliseconds: the first build for a platform compiles the runtime for it. */
const CASE_TIMEOUT = 300_000;
const VERSION = ORIGINAL.slice(ORIGINAL.indexOf("@") + 1);

const UUID: Files = {
  "go.mod": goMod("example.com/ids", { more: "\nrequire github.com/google/uuid v1.6.0\n" }),
  "go.sum": [
    "github.com/google/uuid v1.6.0 h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=",
    "github.com/google/uuid v1.6.0/go.mod h1:TIyPZe4MgqvfeYDBFedMoGGpEw/LqOeaOT+nhxU+yHo=",
    "",
  ].join("\n"),
  "main.go":
    'package main\n\nimport "github.com/google/uuid"\n\nfunc main() { println(uuid.NewSHA1(uuid.NameSpaceURL, nil).String()) }\n',
};

/** What ours has in a document where the original has something else. */
type Change = readonly [original: string | RegExp, ours: string];

interface SbomCase {
  readonly name: string;
  readonly files: Files;
  readonly commit?: boolean;
  readonly before?: readonly string[];
  readonly base: (bases: Bases) => string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The files of `--sbom-dir`, sorted. */
  readonly documents: readonly string[];
  /** For the documents of images. */
  readonly changes: readonly Change[];
  /** For the document of the index too. */
  readonly everywhere?: readonly Change[];
}

/** SPDX allows no parentheses in an identifier. */
const develId = (module: string): Change => [`SPDXRef-Package-${module}-(devel)`, `SPDXRef-Package-${module}-devel`];

const CASES: readonly SbomCase[] = [
  {
    name: "an index of three platforms, with a dependency and a date",
    files: UUID,
    base: ({ index }) => index.reference,
    args: ["--platform=linux/amd64,linux/arm64,linux/arm/v7"],
    env: { SOURCE_DATE_EPOCH: "1700000000" },
    documents: ["ids-index", "ids-linux-amd64", "ids-linux-arm-v7", "ids-linux-arm64-v8"],
    changes: [develId("example.com.ids")],
  },
  {
    name: "a vendored program of a commit, on a Docker image by digest",
    files: UUID,
    commit: true,
    before: ["go", "mod", "vendor"],
    env: { GOFLAGS: "-mod=vendor -buildvcs=true" },
    base: ({ docker }) => docker.reference.replace(/:v1$/, `@${docker.digest}`),
    documents: ["ids-linux-amd64"],
    // The folder vendor is not in the commit. A package URL keeps the version that an identifier must not have.
    changes: [[/(SPDXRef-[^"]*)\+dirty/g, "$1-dirty"]],
  },
  {
    name: "a Windows index, in another time zone",
    files: HELLO,
    base: ({ windows }) => windows.reference,
    args: ["--platform=all"],
    env: { TZ: "America/New_York", SOURCE_DATE_EPOCH: "1700000000" },
    documents: [
      "hello-index",
      "hello-linux-amd64",
      "hello-windows-amd64-10.0.17763.6893",
      "hello-windows-amd64-10.0.20348.3207",
    ],
    changes: [develId("example.com.hello")],
    everywhere: [['"created": "2023-11-14T17:13:20Z"', '"created": "2023-11-14T22:13:20Z"']],
  },
  {
    name: "modules replaced by a folder and by another version, on an annotated base",
    files: {
      ...UUID,
      "go.mod": goMod("example.com/Org/Ids", {
        more: [
          "",
          "require (\n\texample.com/lib v0.1.0\n\tgithub.com/google/uuid v1.3.0\n)",
          "replace example.com/lib => ./lib",
          "replace github.com/google/uuid => github.com/google/uuid v1.6.0",
          "",
        ].join("\n"),
      }),
      "lib/go.mod": goMod("example.com/lib"),
      "lib/lib.go": "package lib\n",
      "import.go": 'package main\n\nimport _ "example.com/lib"\n',
    },
    base: ({ annotated }) => annotated.reference,
    documents: ["Ids-linux-amd64"],
    changes: [
      develId("example.com.Org.Ids"),
      ["SPDXRef-Package-example.com.lib-v0.1.0", "SPDXRef-Package-example.com.lib-devel"],
      ['"versionInfo": "v0.1.0"', '"versionInfo": "(devel)"'],
      ["https://proxy.golang.org/example.com/lib/@v/v0.1.0.zip", "NOASSERTION"],
      ["pkg:golang/example.com/lib@v0.1.0", "pkg:golang/example.com/lib@(devel)"],
      [
        'uuid/@v/v1.3.0.zip",\n      "copyrightText": "NOASSERTION",',
        [
          'uuid/@v/v1.6.0.zip",',
          '      "copyrightText": "NOASSERTION",',
          '      "checksums": [',
          "        {",
          '          "algorithm": "SHA256",',
          '          "checksumValue": "348bda24330eb231c0f27d630212d2833ac0cf2d4782bfa136b6f9edefbde05d"',
          "        }",
          "      ],",
        ].join("\n"),
      ],
      ["uuid-v1.3.0", "uuid-v1.6.0"],
      ['"versionInfo": "v1.3.0"', '"versionInfo": "v1.6.0"'],
      ["uuid@v1.3.0", "uuid@v1.6.0"],
    ],
  },
];

describe.skipIf(programs === undefined)("SBOMs, beside the original", () => {
  let registry: TestRegistry;
  let bases: Bases;

  beforeAll(async () => {
    registry = await startRegistry();
    bases = await pushBases(registry.host);
  });

  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]();
  });

  test.each(CASES.map((item, i) => [item.name, item, i] as const))(
    "%s",
    async (_name, item, i) => {
      using tree = writeTree(item.files);
      using work = writeTree({ sboms: null });
      const repository = `original/case-${i}`;
      if (item.commit === true) await commitTree(tree.path);
      if (item.before !== undefined) await output(item.before, { cwd: tree.path, env: process.env });
      const pulled = await pull(await build([programs?.ko ?? ""], item, { tree, work, repository, dir: "sboms" }));
      const documents = readdirSync(work.at("sboms")).sort();
      expect(documents).toEqual(item.documents.map((name) => `${name}.spdx.json`));

      const built = asBuilt(pulled);
      const images = pulled.kind === "image" ? [pulled] : pulled.children;
      const contents: SbomContent[] = [];
      for (const [at, image] of images.entries()) {
        const platform = platformAt(built, at);
        contents.push({ platform, programs: [await readProgram(image, { work, repository })] });
      }
      const sboms = makeSboms(built, { contents, koVersion: VERSION });
      expect(sboms).toHaveLength(documents.length);
      for (const { document, name, subject } of sboms) {
        const file = documents.find((other) => other.endsWith(`-${name}.spdx.json`));
        const original = readFileSync(work.at(`sboms/${file}`), "utf8");
        const changes = [...(name === "index" ? [] : item.changes), ...(item.everywhere ?? [])];
        expect(text(document)).toBe(change(original, changes));
        expect(findSpdxProblems(document)).toEqual([]);
        await expectArtifact(original, { repository, subject });
      }

      await using client = makeClient();
      const place = { host: registry.host, path: `ours/case-${i}` };
      await pushSbom(built, {
        registry: client.registry,
        repository: place,
        reference: "the image",
        log: silentLog,
        make: async () => sboms,
      });
      const theirs = Object.keys(await pullTags({ ...place, path: repository }));
      expect(Object.keys(await pullTags(place))).toEqual(theirs.filter((tag) => tag.endsWith(".sbom")));
      await expectReadable(sboms, `${place.host}/${place.path}`);
      await expectCommand(item, { tree, work, repository: `command/case-${i}` }, pulled);
    },
    CASE_TIMEOUT,
  );

  interface Places {
    readonly work: Tree;
    readonly repository: string;
  }

  /** Builds with ours, and checks the files, the tags and the pushed documents against what the original wrote. */
  async function expectCommand(
    item: SbomCase,
    { repository, tree, work }: Places & { readonly tree: Tree },
    original: Pulled,
  ): Promise<void> {
    const ours = await pull(await build(ourCommand(), item, { tree, work, repository, dir: "ours" }));
    const files = readdirSync(work.at("ours"));
    expect(files.sort()).toEqual(readdirSync(work.at("sboms")).sort());
    for (const file of files) {
      const changes = [...(file.endsWith("-index.spdx.json") ? [] : item.changes), ...(item.everywhere ?? [])];
      const [mine, theirs] = [readFileSync(work.at(`ours/${file}`)), readFileSync(work.at(`sboms/${file}`), "utf8")];
      expect(withoutDigests(mine.toString(), ours)).toBe(withoutDigests(change(theirs, changes), original));
      expect(findSpdxProblems(mine)).toEqual([]);
    }
    const references = ["ours.refs", "sboms.refs"].map((file) => {
      const lines = readFileSync(work.at(file), "utf8").trimEnd().split("\n");
      return lines.map((line) => line.replace(/^.*\/(?:original|command)\/|[0-9a-f]{64}$/g, ""));
    });
    expect(references[0]).toEqual(references[1]);
    const images = ours.kind === "image" ? [ours] : [...ours.children, ours];
    const tags = await pullTags({ host: registry.host, path: repository });
    const pushed = images.map(({ digest }) => tags[digest.replace(/^sha256:(.*)$/, "sha256-$1.sbom")]);
    const written = files.map((file) => makeSbomImage(readFileSync(work.at(`ours/${file}`))).descriptor.digest);
    expect(new Set<string | undefined>(pushed)).toEqual(new Set<string | undefined>(written));
  }

  /** Builds and pushes with `ko`; the reference that it prints. */
  async function build(
    ko: readonly string[],
    item: SbomCase,
    { dir, repository, tree, work }: Places & { readonly tree: Tree; readonly dir: string },
  ): Promise<string> {
    const env = {
      ...cleanEnvironment(work.path),
      GOFLAGS: "-buildvcs=false",
      KO_DOCKER_REPO: `${registry.host}/${repository}`,
      KOCACHE: work.at("cache"),
      ...item.env,
    };
    work.write({ "config/.ko.yaml": `defaultBaseImage: ${item.base(bases)}\n`, docker: null });
    const files = ["--sbom-dir", work.at(dir), "--image-refs", work.at(`${dir}.refs`)];
    const argv = [...ko, "build", "--bare", ...files, ".", ...(item.args ?? [])];
    return (await output(argv, { cwd: tree.path, env })).trim();
  }

  /** What the program in the last layer of an image says. */
  async function readProgram(image: PulledImage, { repository, work }: Places): Promise<GoBuildInfo> {
    const layer = image.layers.at(-1)?.digest ?? "";
    work.write({ "layer.tar": await pullLayer({ host: registry.host, path: repository }, layer) });
    const options = { cwd: work.path, env: process.env };
    const names = (await output(["tar", "-tPf", "layer.tar"], options)).trim().split("\n");
    const name = names.at(-1) ?? "";
    await output(["tar", "-xf", "layer.tar"], options);
    return await readBuildInfo(work.at(name));
  }

  /** Checks what the original pushed beside an image: the tag, the manifest and the configuration. */
  async function expectArtifact(
    document: string,
    { repository, subject }: { readonly repository: string; readonly subject: Digest },
  ): Promise<void> {
    const pushed = await pull(`${registry.host}/${repository}:${sbomTag(subject)}`);
    if (pushed.kind !== "image") throw new Error("the SBOM is an index");
    const ours = makeSbomImage(Buffer.from(document));
    expect(pushed.text).toBe(text(ours.bytes));
    expect(pushed.configText).toBe(text(ours.configBytes));
  }
});

/** Checks that cosign finds each SBOM beside its image, and oras and crane by its tag. */
async function expectReadable(sboms: readonly Sbom[], repository: string): Promise<void> {
  const documents = sboms.map(({ document }) => document);
  for (const { digest: layer } of documents.flatMap((document) => makeSbomImage(document).manifest.layers)) {
    const argv = [programs?.crane ?? "", "blob", "--insecure", `${repository}@${layer}`];
    const found = await output(argv, { cwd: "/", env: process.env });
    expect(documents.map(text)).toContain(found);
  }
  const [images, tags] = [sboms.map(({ subject }) => subject), sboms.map(({ subject }) => sbomTag(subject))];
  const answer = await askGo("gosbom", { Repository: repository, Images: images, Tags: tags });
  if (answer === undefined) return;
  const expected = documents.map((document) => ({ MediaType: SPDX_MEDIA_TYPE, Bytes: base64(document) }));
  expect(answer).toEqual({ Cosign: expected, Oras: expected });
}

/**
 * A document with numbers for the digests of the images that it is about, and without the version of ko.
 *
 * The base of an index is as that is annotated: the original's has the digest of another manifest (docs/rules.md D4.5).
 */
function withoutDigests(document: string, pulled: Pulled): string {
  const [, base] = /"org\.opencontainers\.image\.base\.digest":"(sha256:[0-9a-f]{64})"/.exec(pulled.text) ?? [];
  const images = pulled.kind === "image" ? [pulled] : [...pulled.children, pulled];
  const digests = images.map(({ digest }) => digest);
  if (pulled.kind === "index" && base !== undefined) digests.push(base);
  return digests.reduce(
    (result, digest, i) => result.replaceAll(digest.replace("sha256:", ""), `DIGEST${i}`),
    document.replace(/"Tool: ko [^"]+"/, '"Tool: ko"'),
  );
}

function change(original: string, changes: readonly Change[]): string {
  let result = original;
  for (const [from, to] of changes) {
    const changed = result.replaceAll(from, to);
    if (changed === result) throw new Error(`the original's document does not hold ${from}:\n${original}`);
    result = changed;
  }
  return result;
}

/** A pulled image or index as our own code has it, without layers. */
function asBuilt(pulled: Pulled): Built {
  if (pulled.kind === "image") return asImage(pulled);
  const bytes = Buffer.from(pulled.text);
  return {
    kind: "index",
    bytes,
    descriptor: describeBytes(pulled.mediaType, bytes),
    index: readIndex(bytes, "the index"),
    children: pulled.children.map(asImage),
  };
}

function asImage({ configText, mediaType, text: manifest }: PulledImage): Image {
  const [bytes, configBytes] = [Buffer.from(manifest), Buffer.from(configText)];
  return {
    kind: "image",
    bytes,
    configBytes,
    descriptor: describeBytes(mediaType, bytes),
    manifest: readManifest(bytes, "the manifest"),
    config: readConfig(configBytes, "the configuration"),
    layers: [],
  };
}

function platformAt(built: Built, at: number): Platform {
  if (built.kind === "image") return { os: built.config.os, architecture: built.config.architecture };
  const platform = built.index.manifests[at]?.platform;
  if (platform === undefined) throw new Error(`image ${at} of the index has no platform`);
  return platform;
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
