import { describe, expect, test } from "bun:test";
import type { Word } from "../lib/config-file.ts";
import { hideSecrets, isSecretName, showVariable, showWord } from "../lib/settings-shown.ts";

const ofFile = (value: string): Word => ({ value, setting: "env", where: ".ko.yaml:1:2", file: ".ko.yaml" });
const ofVariable = (value: string): Word => ({ value, setting: "KO_DEFAULTENV", where: "KO_DEFAULTENV" });

describe("isSecretName()", () => {
  test.each([
    "TOKEN",
    "githubToken",
    "DB_PASSWORD",
    "API_KEY",
    "apiKey",
    "SSH_PRIVATE_KEY",
    "NPM_AUTH",
    "MY_KEY",
    "PGPWD_X_PWD",
  ])("finds %s", (name) => expect(isSecretName(name)).toBe(true));

  test.each(["CGO_ENABLED", "GOPRIVATE", "version", "author", "KEYBOARD", "PATH", "commitDate"])("leaves %s", (name) =>
    expect(isSecretName(name)).toBe(false),
  );
});

describe("hideSecrets()", () => {
  test.each([
    ["-s -w", "-s -w"],
    ["-X main.version=1.2", "-X main.version=1.2"],
    ["-X main.apiToken=abc -w", "-X main.apiToken=*** -w"],
    ["-X=main.apiToken=abc -X=a.b=c", "-X=main.apiToken=*** -X=a.b=c"],
    ["-X 'main.password=a b' -w", "-X 'main.password=***' -w"],
    ["-X main.password='a b' -w", "-X main.password=*** -w"],
    ['"-X=main.secret=a b"', '"-X=main.secret=***"'],
    ["-X main.token=", "-X main.token=***"],
    ["-X main.token='a b", "-X main.token=***"],
    ["-X main.url=https://me:pw@example.com/x", "-X main.url=https://example.com/x"],
  ])("of %j is %j", (text, shown) => {
    expect(hideSecrets(text)).toBe(shown);
  });
});

describe("showVariable()", () => {
  test.each([
    [ofFile("A=b=c"), "b=c"],
    [ofFile("A="), ""],
    [ofFile("A_TOKEN=b"), null],
    [ofFile("GOFLAGS=-ldflags=-X=main.token=b"), "-ldflags=-X=main.token=***"],
    [ofVariable("A=b"), null],
  ])("shows values of the file that are no secrets: %j", (word, value) => {
    expect(showVariable(word)).toEqual({ name: word.value.split("=")[0] ?? "", value, from: word.where });
  });
});

describe("showWord()", () => {
  test.each<[readonly string[], boolean]>([
    [[], true],
    [["Git.Tag", "Date"], true],
    [["Env.GOARCH", "Env.OWN", "GoEnv.GOVERSION"], true],
    [["Env.HOME"], false],
    [["Env.OWN_TOKEN"], false],
    [["Env"], false],
    [["GoEnv.GOPROXY"], false],
    [["Env.FROM_VARIABLE"], false],
  ])("with a template that reads %j", (reads, isShown) => {
    const env = [ofFile("OWN=1"), ofFile("OWN_TOKEN=2"), ofVariable("FROM_VARIABLE=3")];
    const shown = showWord({ word: ofFile("{{ it }}"), text: "expanded", reads }, env);
    expect(shown).toEqual({ value: isShown ? "expanded" : "{{ it }}", from: ".ko.yaml:1:2", hidden: !isShown });
  });
});
