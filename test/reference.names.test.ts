import { describe, expect, test } from "bun:test";
import { UsageError } from "../lib/errors.ts";
import { imageName, nameAll, type Naming } from "../lib/reference.ts";
import { failuresOf } from "./helpers/failures.ts";

const REPO = "registry.example.org/foo/bar";
const PATH = "example.org/sample/cmd/example";

describe("imageName()", () => {
  test.each<[Naming, string, string, string]>([
    // The original's own golden, docs/rules.md D5.1.
    ["md5", REPO, PATH, `${REPO}/example-51d74b7127c5f7495a338df33ecdeb19`],
    ["preserve", REPO, PATH, `${REPO}/${PATH}`],
    ["base", REPO, PATH, `${REPO}/example`],
    ["bare", REPO, PATH, REPO],
    // The hash is that of the lower-cased import path.
    ["md5", "r.example", "example.com/App/cmd/one", "r.example/one-8504846166bfe7669b191f9304d01813"],
    ["md5", "r.example", "example.com/app/cmd/one", "r.example/one-8504846166bfe7669b191f9304d01813"],
    ["preserve", "r.example", "example.com/App/CMD/One", "r.example/example.com/app/cmd/one"],
    ["base", "r.example", "example.com/App/One", "r.example/one"],
    ["md5", "r.example/", "example.com/app", "r.example/app-263362754691983312e964463bd3e953"],
    ["bare", "r.example/x//", "example.com/app", "r.example/x"],
    ["base", "localhost:5000", "app", "localhost:5000/app"],
    ["base", "me", "example.com/app", "me/app"],
    ["preserve", "", "example.com/app", "example.com/app"],
    ["base", "", "example.com/app", "app"],
    ["bare", "", "example.com/app", ""],
    ["base", "r.example", "example.com/app/v2", "r.example/v2"],
  ])("%s of %j and %j is %j", (naming, repository, importPath, expected) => {
    expect(imageName(repository, importPath, naming)).toBe(expected);
  });
});

describe("nameAll()", () => {
  test("names each import path, in order, and one given twice once", () => {
    const paths = ["example.com/b", "example.com/a", "example.com/b"];
    expect([...nameAll("r.example/x", paths, "base")]).toEqual([
      ["example.com/b", "r.example/x/b"],
      ["example.com/a", "r.example/x/a"],
    ]);
  });

  test("takes one import path for a bare name", () => {
    expect([...nameAll("r.example/x", ["example.com/a"], "bare")]).toEqual([["example.com/a", "r.example/x"]]);
  });

  const useHash = (flag: string): string =>
    `Leave out ${flag} (names get a hash of the import path), or use -P (names keep the import path).`;
  const byCase =
    "They differ only in upper and lower case, which image names do not have. Build them one at a time, with --bare.";
  test.each<[Naming, string, string, string, string]>([
    ["bare", "example.com/a", "example.com/b", "r.example/x", useHash("--bare")],
    ["base", "example.com/a/cmd", "example.com/b/cmd", "r.example/x/cmd", useHash("-B")],
    ["base", "example.com/a/cmd", "example.com/b/CMD", "r.example/x/cmd", useHash("-B")],
    ["preserve", "example.com/a", "example.com/A", "r.example/x/example.com/a", byCase],
    ["md5", "example.com/a", "example.com/A", "r.example/x/a-074d4098c1405162000ee5d9c79a00b2", byCase],
  ])("refuses two import paths of one name: %s, %s and %s", async (naming, first, second, name, hint) => {
    const work = (): unknown => nameAll("r.example/x", [first, second], naming);
    expect(work).toThrow(UsageError);
    expect(await failuresOf(work)).toEqual([
      { message: `Cannot publish ${first} and ${second}: both would be named "${name}"`, hint },
    ]);
  });

  test("lists all that is wrong at once", async () => {
    const paths = ["example.com/~me/app", "example.com/a/x", "example.com/b/x", "example.com/c/x"];
    expect((await failuresOf(() => nameAll("r.example", paths, "base"))).map(({ message }) => message)).toEqual([
      'Cannot publish example.com/a/x and example.com/b/x: both would be named "r.example/x"',
      'Cannot publish example.com/b/x and example.com/c/x: both would be named "r.example/x"',
    ]);
    const work = (): unknown => nameAll("r.example", paths.slice(0, 1), "preserve");
    expect(work).toThrow(UsageError);
    expect(await failuresOf(work)).toEqual([
      {
        message:
          'Cannot name the image of example.com/~me/app "r.example/example.com/~me/app": "example.com/~me/app" may hold lower-case letters, digits, ".", "_", "-" and "/"',
        hint: "Use --bare to name the image yourself.",
      },
    ]);
  });

  test.each<[string, Naming, string]>([
    ["", "bare", 'Cannot name the image of example.com/a "": it is empty'],
    [
      "localhost:5000",
      "bare",
      'Cannot name the image of example.com/a "localhost:5000": there is no repository name after the host',
    ],
  ])("refuses the bare name %j", async (repository, naming, message) => {
    const work = (): unknown => nameAll(repository, ["example.com/a"], naming);
    expect(work).toThrow(UsageError);
    expect(await failuresOf(work)).toEqual([{ message, hint: "Set KO_DOCKER_REPO to the full name of the image." }]);
  });

  test("refuses a name longer than registries take", async () => {
    const long = `example.com/${"a".repeat(250)}`;
    const work = (): unknown => nameAll("r.example/x", [long], "preserve");
    expect(work).toThrow(UsageError);
    expect((await failuresOf(work)).map(({ message }) => message)).toEqual([
      `Cannot name the image of ${long} "r.example/x/${long}": the repository name has 264 characters, the limit is 255`,
    ]);
  });
});
