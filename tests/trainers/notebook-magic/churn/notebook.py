# coding: utf-8

# In[1]:


get_ipython().system('pip install six')
