/** Documents beside those of the original ko (`fixtures/sbom`), and where ours differ on purpose. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { GoBuildInfo, GoModule } from "../lib/go-buildinfo.ts";
import type { Image, Index } from "../lib/image.ts";
import { readConfig } from "../lib/oci-config.ts";
import { describe as describeBytes, digestOf, readIndex, readManifest } from "../lib/oci.ts";
import { makeImageDocument, makeIndexDocument, makeSbomImage, makeSboms, type SbomContent } from "../lib/sbom.ts";
import { askGo, base64, listOf } from "./helpers/go-fixtures.ts";
import { randomImage, randomIndex } from "./helpers/images.ts";
import { readAll } from "./helpers/registry-client.ts";
import { isObject, readList, readObject } from "./helpers/registry-images.ts";
import { findSpdxProblems, readGoVersionText } from "./helpers/sbom.ts";

const VERSION = "v0.19.1";

function fixture(name: string): Buffer {
  return readFileSync(join(import.meta.dir, "fixtures", "sbom", name));
}

function imageOf(prefix: string): Pick<Image, "config" | "descriptor" | "manifest"> {
  const bytes = fixture(`${prefix}input-image-manifest.json`);
  const manifest = readManifest(bytes, "the fixture");
  const config = readConfig(fixture(`${prefix}input-image-config.json`), "the fixture");
  return { manifest, config, descriptor: describeBytes(manifest.mediaType ?? "", bytes) };
}

function programOf(prefix: string): GoBuildInfo {
  return readGoVersionText(fixture(`${prefix}input-version-m.txt`).toString());
}

/** Replaces every part, each of which must be there. */
function replaceAll(text: string, changes: readonly (readonly [string, string])[]): string {
  let result = text;
  for (const [from, to] of changes) {
    if (!result.includes(from)) throw new Error(`the original's document does not hold ${from}`);
    result = result.replaceAll(from, to);
  }
  return result;
}

const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const parse = (bytes: Uint8Array): Readonly<Record<string, unknown>> => readObject(JSON.parse(textOf(bytes)));
const packagesOf = (bytes: Uint8Array): readonly Readonly<Record<string, unknown>>[] =>
  readList(parse(bytes)["packages"]);
const purlOf = (found: Readonly<Record<string, unknown>> | undefined): unknown =>
  readList(found?.["externalRefs"])[0]?.["referenceLocator"];

describe("beside the original", () => {
  test("an image equals, but for an identifier that SPDX forbids", () => {
    const expected = replaceAll(fixture("image.spdx.json").toString(), [
      ["SPDXRef-Package-example.com.hello-(devel)", "SPDXRef-Package-example.com.hello-devel"],
    ]);
    expect(textOf(makeImageDocument(imageOf(""), { programs: [programOf("")], koVersion: VERSION }))).toBe(expected);
  });

  test("an index equals", () => {
    const bytes = fixture("input-index-manifest.json");
    const index = readIndex(bytes, "the fixture");
    const children = [imageOf("")];
    const document = makeIndexDocument(
      { index, children, descriptor: describeBytes(index.mediaType ?? "", bytes) },
      VERSION,
    );
    expect(textOf(document)).toBe(fixture("index.spdx.json").toString());
  });

  test("replaced modules, capitals and odd versions: identifiers, download URLs and replacements differ", () => {
    const expected = replaceAll(fixture("replaced-image.spdx.json").toString(), [
      ["SPDXRef-Package-example.com.Acme.App.v2-v2.0.0+dirty", "SPDXRef-Package-example.com.Acme.App.v2-v2.0.0-dirty"],
      ["blang.semver-v3.5.1+incompatible", "blang.semver-v3.5.1-incompatible"],
      // The path of a module with capitals, as the proxy wants it.
      ["proxy.golang.org/github.com/BurntSushi/toml", "proxy.golang.org/github.com/!burnt!sushi/toml"],
      // Replaced by a folder.
      ["SPDXRef-Package-example.com.Lib-v0.0.0", "SPDXRef-Package-example.com.Lib-devel"],
      ['"versionInfo": "v0.0.0"', '"versionInfo": "(devel)"'],
      ["https://proxy.golang.org/example.com/Lib/@v/v0.0.0.zip", "NOASSERTION"],
      ["pkg:golang/example.com/Lib@v0.0.0", "pkg:golang/example.com/Lib@(devel)"],
      // Replaced by another version.
      ["SPDXRef-Package-github.com.google.uuid-v1.3.0", "SPDXRef-Package-github.com.google.uuid-v1.6.0"],
      ['"versionInfo": "v1.3.0"', '"versionInfo": "v1.6.0"'],
      ["pkg:golang/github.com/google/uuid@v1.3.0", "pkg:golang/github.com/google/uuid@v1.6.0"],
      [
        [
          '"https://proxy.golang.org/github.com/google/uuid/@v/v1.3.0.zip",',
          '      "copyrightText": "NOASSERTION",',
          '      "externalRefs": [',
        ].join("\n"),
        [
          '"https://proxy.golang.org/github.com/google/uuid/@v/v1.6.0.zip",',
          '      "copyrightText": "NOASSERTION",',
          '      "checksums": [',
          "        {",
          '          "algorithm": "SHA256",',
          '          "checksumValue": "348bda24330eb231c0f27d630212d2833ac0cf2d4782bfa136b6f9edefbde05d"',
          "        }",
          "      ],",
          '      "externalRefs": [',
        ].join("\n"),
      ],
    ]);
    expect(
      textOf(makeImageDocument(imageOf("replaced-"), { programs: [programOf("replaced-")], koVersion: VERSION })),
    ).toBe(expected);
  });

  test("the image that carries a document equals: manifest, configuration and layer", async () => {
    const document = fixture("image.spdx.json");
    const image = makeSbomImage(document);
    expect(textOf(image.bytes)).toBe(fixture("artifact-manifest.json").toString());
    expect(textOf(image.configBytes)).toBe(fixture("artifact-config.json").toString());
    expect(image.manifest.config).toMatchObject(describeBytes(image.manifest.config.mediaType, image.configBytes));
    expect(image.layers.map(({ descriptor }) => descriptor)).toEqual([...image.manifest.layers]);
    expect(image.layers.map(({ diffId }) => diffId)).toEqual([digestOf(document)]);
    for (const layer of image.layers) expect(await readAll(layer.open())).toEqual(new Uint8Array(document));
  });
});

/** A program of `example.com/app` with these modules. */
const program = (
  deps: readonly GoModule[],
  main: GoModule = { path: "example.com/app", version: "v1.2.3" },
): GoBuildInfo => ({
  goVersion: "go1.26.8",
  path: main.path,
  main,
  deps,
  settings: [],
});
const SUM = "h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=";
const SUM_HEX = "348bda24330eb231c0f27d630212d2833ac0cf2d4782bfa136b6f9edefbde05d";

/** The packages behind the image, of a program with one dependency. */
async function dependency(dep: GoModule): Promise<Readonly<Record<string, unknown>>> {
  const document = makeImageDocument(await randomImage(), { programs: [program([dep])], koVersion: "1" });
  expect(findSpdxProblems(document)).toEqual([]);
  const found = packagesOf(document)[2];
  const { SPDXID, checksums, downloadLocation, name, versionInfo } = found ?? {};
  return {
    SPDXID,
    name,
    versionInfo,
    downloadLocation,
    sum: readList(checksums)[0]?.["checksumValue"],
    purl: purlOf(found),
  };
}

describe("makeImageDocument()", () => {
  test.each<[string, GoModule, Record<string, unknown>]>([
    [
      "a module of another path is listed as it was compiled",
      {
        path: "k8s.io/api",
        version: "v0.1.0",
        sum: "h1:x",
        replace: { path: "github.com/Fork/API", version: "v2.0.0", sum: SUM },
      },
      {
        SPDXID: "SPDXRef-Package-github.com.Fork.API-v2.0.0",
        name: "github.com/Fork/API",
        versionInfo: "v2.0.0",
        downloadLocation: "https://proxy.golang.org/github.com/!fork/!a!p!i/@v/v2.0.0.zip",
        sum: SUM_HEX,
        purl: "pkg:golang/github.com/fork/API@v2.0.0?type=module",
      },
    ],
    [
      "a module of a workspace has no download URL",
      { path: "example.com/lib", version: "(devel)" },
      {
        SPDXID: "SPDXRef-Package-example.com.lib-devel",
        name: "example.com/lib",
        versionInfo: "(devel)",
        downloadLocation: "NOASSERTION",
        sum: undefined,
        purl: "pkg:golang/example.com/lib@(devel)?type=module",
      },
    ],
    [
      "capitals of a version are escaped in the download URL",
      { path: "example.com/x/y", version: "v1.0.0-RC.1", sum: "md5:abc" },
      {
        SPDXID: "SPDXRef-Package-example.com.x.y-v1.0.0-RC.1",
        name: "example.com/x/y",
        versionInfo: "v1.0.0-RC.1",
        downloadLocation: "https://proxy.golang.org/example.com/x/y/@v/v1.0.0-!r!c.1.zip",
        sum: undefined,
        purl: "pkg:golang/example.com/x/y@v1.0.0-RC.1?type=module",
      },
    ],
    [
      "underscores and tildes are not allowed in identifiers",
      { path: "example.com/~joe/my_lib", version: "v1.0.0", sum: SUM },
      {
        SPDXID: "SPDXRef-Package-example.com.-joe.my-lib-v1.0.0",
        name: "example.com/~joe/my_lib",
        versionInfo: "v1.0.0",
        downloadLocation: "https://proxy.golang.org/example.com/~joe/my_lib/@v/v1.0.0.zip",
        sum: SUM_HEX,
        purl: "pkg:golang/example.com/~joe/my_lib@v1.0.0?type=module",
      },
    ],
  ])("%s", async (_name, dep, expected) => {
    expect(await dependency(dep)).toEqual(expected);
  });

  test.each(["./lib", "../lib", ".", "..", "/home/joe/lib", "..\\lib", "C:\\lib", "C:/lib"])(
    "a module replaced by the folder %s keeps its path, and the folder is not told",
    async (path) => {
      const found = await dependency({
        path: "example.com/lib",
        version: "v1.0.0",
        replace: { path, version: "(devel)" },
      });
      expect(found).toEqual(await dependency({ path: "example.com/lib", version: "(devel)" }));
    },
  );

  test("identifiers stay different", async () => {
    const paths = ["example.com/a_b", "example.com/a-b", "example.com/a~b", "example.com/a-b-v1", "example.com.a-b"];
    const deps = paths.map((path) => ({ path, version: path.endsWith("-v1") ? "v1" : "v1-2" }));
    const document = makeImageDocument(await randomImage(), {
      programs: [program([...deps, { path: "example.com/a-b", version: "v1" }])],
      koVersion: "1",
    });
    expect(findSpdxProblems(document)).toEqual([]);
    expect(
      packagesOf(document)
        .slice(2)
        .map(({ SPDXID }) => SPDXID),
    ).toEqual([
      "SPDXRef-Package-example.com.a-b-v1-2",
      "SPDXRef-Package-example.com.a-b-v1-2-2",
      "SPDXRef-Package-example.com.a-b-v1-2-3",
      "SPDXRef-Package-example.com.a-b-v1-v1",
      "SPDXRef-Package-example.com.a-b-v1-2-4",
      "SPDXRef-Package-example.com.a-b-v1",
    ]);
  });

  test("two programs, such as a debugger beside the user's: modules that both use are listed once", async () => {
    const shared = { path: "example.com/shared", version: "v1.0.0", sum: SUM };
    const delve = program([shared], { path: "github.com/go-delve/delve", version: "v1.27.2", sum: SUM });
    const document = makeImageDocument(await randomImage(), { programs: [program([shared]), delve], koVersion: "1" });
    expect(findSpdxProblems(document)).toEqual([]);
    expect(
      packagesOf(document)
        .slice(1)
        .map(({ name }) => name),
    ).toEqual(["example.com/app", "example.com/shared", "github.com/go-delve/delve"]);
    const edges = readList(parse(document)["relationships"]).map(({ relatedSpdxElement, relationshipType }) => [
      relationshipType,
      relatedSpdxElement,
    ]);
    expect(edges.slice(1)).toEqual([
      ["CONTAINS", "SPDXRef-Package-example.com.app-v1.2.3"],
      ["DEPENDS_ON", "SPDXRef-Package-example.com.shared-v1.0.0"],
      ["CONTAINS", "SPDXRef-Package-github.com.go-delve.delve-v1.27.2"],
      ["DEPENDS_ON", "SPDXRef-Package-example.com.shared-v1.0.0"],
    ]);
  });

  test("a program without modules is named by its import path; without that there is only the image", async () => {
    const image = await randomImage();
    const bare = { goVersion: "go1.26.8", deps: [], settings: [] };
    const named = makeImageDocument(image, { programs: [{ ...bare, path: "example.com/hello" }], koVersion: "1" });
    expect(findSpdxProblems(named)).toEqual([]);
    expect(
      packagesOf(named)
        .slice(1)
        .map(({ name, downloadLocation }) => [name, downloadLocation]),
    ).toEqual([["example.com/hello", "NOASSERTION"]]);
    const empty = makeImageDocument(image, { programs: [{ ...bare, path: "" }], koVersion: "1" });
    expect(findSpdxProblems(empty)).toEqual([]);
    expect(packagesOf(empty)).toHaveLength(1);
  });

  test.each<[string | undefined, string]>([
    [undefined, "0001-01-01T00:00:00Z"],
    ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"],
    ["2023-11-14T22:13:20.999999999Z", "2023-11-14T22:13:20Z"],
    ["2023-11-14T22:13:20.5-05:00", "2023-11-15T03:13:20Z"],
    ["2024-01-01T00:00:00+05:30", "2023-12-31T18:30:00Z"],
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"],
  ])("the time %p is written in UTC, whatever the time zone", async (created, expected) => {
    const { config, ...image } = await randomImage();
    const { created: _, ...undated } = config;
    const dated = { ...image, config: { ...undated, ...(created === undefined ? {} : { created }) } };
    expect(
      readObject(parse(makeImageDocument(dated, { programs: [], koVersion: "1" }))["creationInfo"])["created"],
    ).toBe(expected);
  });

  const DIGEST = `sha256:${"ab".repeat(32)}`;
  test.each<[string, string, readonly [name: string, qualifiers: string]]>([
    ["a tag", "ghcr.io/me/base:v1", [`ghcr.io/me/base@${DIGEST}`, "repository_url=ghcr.io%2Fme%2Fbase&tag=v1"]],
    ["a digest", `ghcr.io/me/base@${DIGEST}`, [`ghcr.io/me/base@${DIGEST}`, "repository_url=ghcr.io%2Fme%2Fbase"]],
    [
      "Docker Hub",
      "index.docker.io/library/alpine:3",
      [`index.docker.io/library/alpine@${DIGEST}`, "repository_url=index.docker.io%2Flibrary%2Falpine&tag=3"],
    ],
    [
      "ko's own base",
      "ko.builtin/static:latest",
      [`ko.builtin/static@${DIGEST}`, "repository_url=ko.builtin%2Fstatic&tag=latest"],
    ],
    ["a text of the user's", "My <base> & more", [`My <base> & more@${DIGEST}`, ""]],
  ])("the base: %s", async (_name, text, [name, qualifiers]) => {
    const image = await randomImage({
      annotations: { "org.opencontainers.image.base.name": text, "org.opencontainers.image.base.digest": DIGEST },
    });
    const base = packagesOf(makeImageDocument(image, { programs: [], koVersion: "1" }))[1];
    expect([base?.["name"], base?.["versionInfo"], purlOf(base)]).toEqual([
      name,
      text,
      `pkg:oci/image@${DIGEST}${qualifiers === "" ? "" : `?${qualifiers}`}`,
    ]);
  });

  test.each<[string, Record<string, string>]>([
    ["no annotations", {}],
    ["no digest", { "org.opencontainers.image.base.name": "a:b" }],
    ["no name", { "org.opencontainers.image.base.digest": DIGEST }],
    [
      "a digest that is none",
      { "org.opencontainers.image.base.name": "a:b", "org.opencontainers.image.base.digest": "x" },
    ],
  ])("no base is listed with %s", async (_name, annotations) => {
    expect(
      packagesOf(makeImageDocument(await randomImage({ annotations }), { programs: [], koVersion: "1" })),
    ).toHaveLength(1);
  });

  test("odd characters are escaped as Go escapes them", async () => {
    const document = makeImageDocument(await randomImage(), {
      programs: [program([], { path: "a<b>&\u2028", version: "" })],
      koVersion: "1 <&> 😀\ud800",
    });
    expect(textOf(document)).toContain('"Tool: ko 1 \\u003c\\u0026\\u003e 😀\ufffd"');
    expect(textOf(document)).toContain('"name": "a\\u003cb\\u003e\\u0026\\u2028"');
  });
});

describe("makeSboms()", () => {
  test("makes a document for an image, named by the platform", async () => {
    const image = await randomImage();
    const platform = { os: "windows", architecture: "amd64", "os.version": "10.0.17763.1" };
    const [sbom, ...more] = makeSboms(image, { contents: [{ platform, programs: [program([])] }], koVersion: "1" });
    expect(more).toEqual([]);
    expect({ name: sbom?.name, subject: sbom?.subject }).toEqual({
      name: "windows-amd64-10.0.17763.1",
      subject: image.descriptor.digest,
    });
    expect(textOf(sbom?.document ?? Buffer.of())).toBe(
      textOf(makeImageDocument(image, { programs: [program([])], koVersion: "1" })),
    );
  });

  test("makes one for each image of an index, then one for the index", async () => {
    const index = await twoPlatforms();
    const sboms = makeSboms(index, { contents: contentsOf(index), koVersion: "1" });
    expect(sboms.map(({ name, subject }) => [name, subject])).toEqual([
      ...index.children.map(({ descriptor }, i) => [["linux-amd64", "linux-arm-v7"][i] ?? "", descriptor.digest]),
      ["index", index.descriptor.digest],
    ]);
    expect(sboms.flatMap(({ document }) => findSpdxProblems(document))).toEqual([]);
  });

  test("platforms with all parts are qualifiers in order of their names", async () => {
    const image = await randomImage();
    const entry = {
      ...image.descriptor,
      platform: {
        os: "windows",
        architecture: "arm64",
        variant: "v8",
        "os.version": "10.0 (x)",
        "os.features": ["win32k", "a!'b"],
      },
    };
    const index = { schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [entry] };
    const document = makeIndexDocument(
      { index, children: [image], descriptor: { ...image.descriptor, digest: digestOf(Buffer.of()) } },
      "1",
    );
    const child = packagesOf(document)[1];
    expect(String(purlOf(child)).replace(/^[^?]*/, "")).toBe(
      "?arch=arm64&mediaType=application%2Fvnd.oci.image.manifest.v1%2Bjson&os=windows&os-feature=win32k&os-feature=a%21%27b&os-version=10.0+%28x%29&variant=v8",
    );
    expect(child?.["versionInfo"]).toBe("windows/arm64/v8:10.0 (x)");
  });

  test("each image needs its content", async () => {
    const index = await twoPlatforms();
    expect(() => makeSboms(index, { contents: contentsOf(index).slice(1), koVersion: "1" })).toThrow(RangeError);
  });
});

function twoPlatforms(): Promise<Index> {
  return randomIndex({
    platforms: [
      { os: "linux", architecture: "amd64" },
      { os: "linux", architecture: "arm", variant: "v7" },
    ],
  });
}

function contentsOf(index: Index): readonly SbomContent[] {
  return index.index.manifests.flatMap(({ platform }) =>
    platform === undefined
      ? []
      : [{ platform, programs: [program([{ path: "example.com/dep", version: "v1.0.0", sum: SUM }])] }],
  );
}

describe("SPDX 2.3", () => {
  test("the rules see what is wrong with the original's documents", () => {
    expect(findSpdxProblems(fixture("image.spdx.json"))).toEqual([
      'document/packages/2/SPDXID must match pattern "^SPDXRef-[A-Za-z0-9.-]+$"',
    ]);
    const text = fixture("index.spdx.json").toString();
    expect(findSpdxProblems(Buffer.from(text))).toEqual([]);
    const [one, other] = [
      "434750b969fd57d5f6bced2c81ace53da124ca645d2e365cb884c1efda886d66",
      "SPDXRef-Package-sha256-9e56",
    ];
    const twice = text.replaceAll(/SPDXRef-Package-sha256-9e56[0-9a-f]{60}/g, `SPDXRef-Package-sha256-${one}`);
    expect(findSpdxProblems(Buffer.from(twice))).toEqual([
      `two packages have the identifier SPDXRef-Package-sha256-${one}`,
      expect.stringContaining("is there twice"),
    ]);
    expect(findSpdxProblems(Buffer.from(text.replace(`"SPDXID": "${other}`, `"SPDXID": "${other}0`)))).toHaveLength(2);
    const changes: readonly (readonly [string | RegExp, string])[] = [
      ['"VARIANT_OF"', '"VARIANT"'],
      ['"SPDX-2.3"', '"SPDX-2.2"'],
      [/"name": "sbom[^,]*,/, ""],
      ['"filesAnalyzed": false,', ""],
      ['"filesAnalyzed": false,', '"filesAnalysed": false,'],
      ['"PACKAGE-MANAGER"', '"PACKAGE_MANAGER"'],
      ['"SHA256"', '"SHA-256"'],
      [/"checksumValue": "../, '"checksumValue": "'],
      [/"created": "[^"]*Z"/, '"created": "2023-11-14T17:13:20-05:00"'],
    ];
    for (const [from, to] of changes) {
      const changed = text.replace(from, to);
      expect([from, changed === text, findSpdxProblems(Buffer.from(changed))]).toEqual([
        from,
        false,
        [expect.any(String)],
      ]);
    }
  });

  test("our documents keep its rules, and its own library for Go reads them whole", async () => {
    const index = await twoPlatforms();
    const documents = [
      makeImageDocument(imageOf(""), { programs: [programOf("")], koVersion: VERSION }),
      makeImageDocument(imageOf("replaced-"), { programs: [programOf("replaced-")], koVersion: VERSION }),
      ...makeSboms(index, { contents: contentsOf(index), koVersion: "0.1.0" }).map(({ document }) => document),
    ];
    expect(documents.flatMap(findSpdxProblems)).toEqual([]);
    const answer = await askGo("gospdx", { Documents: documents.map(base64) });
    if (answer === undefined || !isObject(answer)) return;
    expect(listOf(answer, "Problems")).toEqual(documents.map(() => ""));
    expect(listOf(answer, "Packages")).toEqual(
      documents.map((document) =>
        packagesOf(document)
          .map(({ name }) => String(name))
          .sort(),
      ),
    );
    // It adds DESCRIBES to that of the index, from `documentDescribes`.
    expect(listOf(answer, "Relationships")).toEqual([4, 8, 3, 3, 2 + 1]);
  }, 120_000);
});
