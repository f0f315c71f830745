import { describe, expect, test } from "bun:test";
import { keepSymbols, type LinkerWords } from "../lib/go-ldflags.ts";
import { splitQuoted } from "../lib/go.ts";

describe("keepSymbols()", () => {
  test.each<[text: string, want: string | undefined]>([
    ["", undefined],
    ["-X main.v=1", undefined],
    ["-s", ""],
    ["-s -w", ""],
    ["-s -w -X main.v=1", "-X main.v=1"],
    ["-X main.v=1 -w  -buildid=  -s", "-X main.v=1  -buildid="],
    ["  -s\n-X main.v=1\n-w\n", "-X main.v=1"],
    ["--s --w=true -s=1 -w=T", ""],
    ["-v '-s' \"-w\" -X 'main.v=a b'", "-v -X 'main.v=a b'"],
    // Values, not flags.
    ["-X -s", undefined],
    ["-extldflags -s", undefined],
    ["-extldflags '-s -w' -s", "-extldflags '-s -w'"],
    ["-extldflags=-s -w", "-extldflags=-s"],
    ["-buildid -w", undefined],
    ["-X main.v=-s", undefined],
    // A switch has no value.
    ["-v -s", "-v"],
    ["-linkmode=external -w", "-linkmode=external"],
    // They keep symbols.
    ["-s=false -w=0", undefined],
    ["-compressdwarf=false -strictdups=1 -sx -wx", undefined],
    ["all=-s -X a.b=c", "all=-X a.b=c"],
    ["example.com/...=-w", "example.com/...="],
  ])("of ldflags %j", (text, want) => {
    const kept = keepSymbols({ flags: ["-v"], ldflags: [text] }, []);
    expect(kept).toEqual(want === undefined ? undefined : { flags: ["-v"], ldflags: [want] });
  });

  test.each<[flags: readonly string[], goflags: string, want: LinkerWords | undefined]>([
    [["-v"], "-mod=mod", undefined],
    [["-ldflags=-s -w", "-v"], "", { flags: ["-ldflags=", "-v"], ldflags: [] }],
    [["--ldflags", "-s -X a.b=c"], "", { flags: ["--ldflags", "-X a.b=c"], ldflags: [] }],
    [["-v"], "-ldflags=-s", { flags: ["-v"], ldflags: [""] }],
    [["-v"], "'-ldflags=-w -X a.b=c' -mod=mod", { flags: ["-v"], ldflags: ["-X a.b=c"] }],
    [["-v"], "-ldflags=-X=a.b=c", undefined],
    // Those of flags replace those of GOFLAGS.
    [["-ldflags=-X=a.b=c"], "-ldflags=-s", undefined],
  ])("of flags %j and GOFLAGS %j", (flags, goflags, want) => {
    expect(keepSymbols({ flags, ldflags: [] }, splitQuoted(goflags))).toEqual(want);
  });

  test("of several parts, which are one text", () => {
    expect(keepSymbols({ flags: [], ldflags: ["-X", "-s", "-w", "-v"] }, [])).toEqual({
      flags: [],
      ldflags: ["-X -s -v"],
    });
  });

  test("leaves flags alone that ldflags replace", () => {
    expect(keepSymbols({ flags: ["-ldflags=-s"], ldflags: ["-v"] }, ["-ldflags=-w"])).toBeUndefined();
  });
});
