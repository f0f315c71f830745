import { describe, expect, test } from "bun:test";
import { Metadata } from "../lib/events-metadata.ts";
import type { Event, ResultImage } from "../lib/events.ts";

const WEB = { importPath: "example.com/web", image: "r/web" };

function digest(letter: string): string {
  return `sha256:${letter.repeat(64)}`;
}

function content(letter: string): { mediaType: string; digest: string; size: number } {
  return { mediaType: "m", digest: digest(letter), size: 1 };
}

function image(platform: string, why?: ResultImage["why"]): ResultImage {
  const layers = [{ ...content("d"), diffId: digest("e") }];
  return { platform, manifest: content("b"), config: digest("c"), layers, ...(why === undefined ? {} : { why }) };
}

function format(...events: readonly Event[]): unknown {
  const metadata = new Metadata();
  for (const [i, event] of events.entries()) metadata.add(event, i * 100);
  const value: unknown = JSON.parse(metadata.format({ exitCode: 0, koVersion: "v1" }));
  return value;
}

const PROGRAM: Event = { type: "program", ...WEB, tags: ["v1", "latest"], platforms: ["linux/amd64"], base: "b" };

describe("Metadata", () => {
  test("a single image has the keys of docker buildx", () => {
    const subject = { text: "", importPaths: [WEB.importPath] };
    expect(
      format(
        { ...PROGRAM, baseDigest: digest("f") },
        { type: "stage", state: "begin", stage: "compile", id: 1, subject },
        { type: "stage", state: "end", stage: "compile", id: 1, subject },
        {
          type: "result",
          importPath: WEB.importPath,
          reference: "r/web@x",
          descriptor: content("a"),
          images: [image("linux/amd64", { reason: "changed", file: "/a.go" })],
          wasThere: false,
        },
        { type: "sbom", importPath: WEB.importPath, references: ["r/web:s.sbom"] },
      ),
    ).toEqual({
      version: 1,
      koVersion: "v1",
      exitCode: 0,
      programs: [
        {
          importPath: WEB.importPath,
          "image.name": "r/web:v1,r/web:latest",
          platforms: [
            {
              platform: "linux/amd64",
              ...content("b"),
              config: digest("c"),
              layers: [{ ...content("d"), diffId: digest("e") }],
              reused: false,
              why: { reason: "changed", file: "/a.go" },
            },
          ],
          base: { name: "b", digest: digest("f") },
          published: true,
          reference: "r/web@x",
          wasThere: false,
          "containerimage.digest": digest("a"),
          "containerimage.descriptor": content("a"),
          "containerimage.config.digest": digest("c"),
          sboms: ["r/web:s.sbom"],
          seconds: { compile: 0.1 },
        },
      ],
      errors: [],
    });
  });

  test("an index has no configuration of its own", () => {
    const value = format(PROGRAM, {
      type: "result",
      importPath: WEB.importPath,
      reference: "r",
      descriptor: content("a"),
      images: [image("linux/amd64"), image("linux/arm64")],
      wasThere: true,
    });
    expect(value).toMatchObject({ programs: [{ wasThere: true, platforms: [{ reused: true }, { reused: true }] }] });
    expect(JSON.stringify(value)).not.toContain("containerimage.config.digest");
  });

  test("a program that was not published, and the errors", () => {
    expect(format(PROGRAM, { type: "error", code: "compile", message: "m", file: "a.go", line: 1 })).toMatchObject({
      programs: [{ published: false, platforms: [{ platform: "linux/amd64" }], sboms: [], seconds: {} }],
      errors: [{ code: "compile", message: "m", file: "a.go", line: 1 }],
    });
  });

  test("a further attempt begins a program again", () => {
    expect(format(PROGRAM, { ...PROGRAM, tags: [] })).toMatchObject({ programs: [{ "image.name": "r/web" }] });
  });
});
