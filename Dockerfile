# docker build -t parley . && docker run --read-only --tmpfs /tmp -p 7860:7860 parley
#
# The user in it owns nothing and can write to /tmp only. Give it a volume for models that are downloaded:
# docker run --read-only --tmpfs /tmp -v models:/models -p 7860:7860 parley
FROM python:3.12-slim
RUN useradd --no-create-home --home-dir /nonexistent --uid 10001 parley \
    && install --directory --owner parley /models
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY app.py ./
COPY parley ./parley
RUN python -m compileall -q app.py parley
# What the libraries would write to a home goes to /tmp; what is downloaded goes to the volume.
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_TEMP_DIR=/tmp/gradio HF_HOME=/tmp/huggingface HF_HUB_CACHE=/models \
    XDG_CACHE_HOME=/tmp/cache XDG_CONFIG_HOME=/tmp/config PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER parley
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz')"]
# The server gets the signals itself, so it ends in order.
CMD ["python", "app.py"]
