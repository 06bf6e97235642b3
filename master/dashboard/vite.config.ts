// How the dashboard is built, and how it is served while one works on it: `npm run dev` hands the API's paths on to the
// master at LANDLINE_URL, under LANDLINE_TOKEN where one is set.
import { defineConfig, type ProxyOptions } from "vite";

const master = process.env.LANDLINE_URL ?? "http://127.0.0.1:7800";
const token = process.env.LANDLINE_TOKEN;
const proxy: ProxyOptions = {
  target: master,
  ws: true,
  changeOrigin: true,
  headers: { origin: master, ...(token ? { authorization: `Bearer ${token}` } : {}) },
};

export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "/api": proxy, "/healthz": proxy } },
});
